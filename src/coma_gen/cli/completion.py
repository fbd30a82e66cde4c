"""`coma-gen completion`: print a shell completion script."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from coma_gen.workspace.paths import Workspace

EXAMPLES = """examples:
  source <(coma-gen completion bash)                               in this shell, or in ~/.bashrc
  coma-gen completion zsh > ~/.zfunc/_coma-gen                     with ~/.zfunc in fpath, before compinit
"""
PATHS = {"FILE": "file", "FILES": "file", "FOLDER": "directory", "MODEL": "directory"}
"""Metavar (or name, if it has none) of an argument -> kind of path that completes it."""


def add_command(commands: Any, build_parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Adds `completion` to the sub-commands of an argparse parser; `build_parser` builds the whole parser."""
    parser = commands.add_parser(
        "completion",
        help="print a completion script for bash, zsh or tcsh",
        description="Print a completion script for bash, zsh or tcsh.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    parser.set_defaults(run=run, anywhere=True, build_parser=build_parser)


def run(_workspace: Workspace | None, options: argparse.Namespace, _rest: list[str]) -> int:
    """Prints the script."""
    import shtab

    kinds = {"file": shtab.FILE, "directory": shtab.DIRECTORY}
    parser = options.build_parser()
    for action in _iter_actions(parser):
        kind = PATHS.get(str(action.metavar or action.dest.upper()))
        if kind is not None:
            action.complete = kinds[kind]  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    return 0


def _iter_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields all arguments of a parser and of its sub-commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _iter_actions(each)
