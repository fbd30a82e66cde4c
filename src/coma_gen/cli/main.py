"""The `coma-gen` command: what a person types beside `dvc`.

Each sub-command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import coma_gen
from coma_gen.cli import (
    ablation,
    completion,
    doctor,
    experiments,
    express,
    finetune,
    generate,
    inspect,
    listen,
    play,
    render,
    result,
    serve,
    shard,
)
from coma_gen.core.errors import Fault, UserError, memory_fault
from coma_gen.core.extras import require_extra
from coma_gen.workspace.paths import Workspace

EXAMPLES = """examples (most commands have more in their own --help):
  coma-gen play                                            continue MIDI files on a page in your browser
  coma-gen generate my.mid                                 the same in the terminal
  coma-gen experiment maestro -S model.num_layers=2        all of MAESTRO, as a DVC experiment
  coma-gen experiment maestro shard                        only its data stages
  coma-gen experiments                                     which run is best, by how much, and why
  coma-gen finetune /music/midi                            go on training with your own music
  coma-gen serve --port 5002                               continue MIDI files for other programs, over HTTP
"""
EXTRAS = {"serve": "serve"}
"""Command -> the extra of pyproject.toml that it needs; the others in a checkout need `pipeline`."""


QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore"}
"""For MLflow's UI, whose twenty lines at the start would hide the address."""
UNKNOWN = re.compile(r"argument COMMAND: invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)
"""What argparse says of a command that there is not."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the options."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2; of an unknown command it names the one that is spelled most like it."""
        if unknown := UNKNOWN.fullmatch(message):
            close = get_close_matches(unknown[1], re.findall(r"[\w-]+", unknown[2]), n=1)
            message = f"there is no command {unknown[1]!r}"
            message += f" (did you mean {close[0]}?)" if close else ""
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 1 and the faults where the input is at fault."""
    _write_any_text()
    parser = _parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        parser.print_help()
        sys.exit(2)
    options, rest = parser.parse_known_args(words)
    if rest and not getattr(options, "takes_more", False):
        parser.error(f"there is no {' '.join(rest)} in coma-gen {options.command}")
    try:
        is_anywhere = getattr(options, "anywhere", False)
        workspace = _checkout(needed=not is_anywhere)
        if extra := EXTRAS.get(options.command, "" if is_anywhere else "pipeline"):
            require_extra(extra, where=f"coma-gen {options.command}")
        status = options.run(workspace, options, rest)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it can be told that nobody reads it
        sys.exit(status)
    except BrokenPipeError:
        if not _is_unread():
            raise
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        sys.exit(f"coma-gen: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        sys.exit(f"coma-gen: {error.filename or 'disk'}: {error.strerror}")
    except (MemoryError, RuntimeError) as error:
        if (fault := memory_fault(error)) is None:
            raise
        sys.exit(f"coma-gen: {fault}")


def _write_any_text() -> None:
    """Lets a name be printed that the terminal's encoding lacks, or whose bytes are no text at all."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_unread() -> bool:
    """Whether nobody reads what is printed any more, as behind `| head`; then nothing more is."""
    if sys.stdout is None:
        return False
    output = sys.stdout.fileno()
    asked = select.poll()
    asked.register(output, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # for what is flushed at the end
    return True


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="coma-gen",
        description="Makes music, and works on the coma-gen checkout that you are in.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = getattr(coma_gen, "__version__", "(not installed)")
    parser.add_argument("--version", action="version", version=f"coma-gen {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (generate, express, play, render, inspect):
        command.add_command(commands)
    experiment = commands.add_parser("experiment", help="run a preset of presets/ through `dvc exp run`")
    experiment.add_argument("preset", help="its name, such as maestro; what follows goes to `dvc exp run`")
    experiment.set_defaults(run=_experiment, takes_more=True)
    for name, run, text in (
        ("summary", _summary, "what came out, and where it is"),
        ("figures", _figures, "performances, hours and notes of each split"),
    ):
        commands.add_parser(name, help=text).set_defaults(run=run)
    verify = commands.add_parser("verify", help="hold this build against the committed one")
    verify.add_argument(
        "--tree",
        action="store_true",
        help="fail, too, on any changed or new file that a build does not explain (for CI)",
    )
    verify.set_defaults(run=_verify)
    for command in (experiments, ablation, result, listen, shard, doctor, finetune, serve):
        command.add_command(commands)
    ui = commands.add_parser("ui", help="the MLflow UI, on this machine only")
    ui.add_argument("--port", type=int, default=5000, help="where it listens on 127.0.0.1 (default: 5000)")
    ui.set_defaults(run=_ui)
    completion.add_command(commands, _parser)
    return parser


def _checkout(*, needed: bool) -> Workspace | None:
    """The checkout that one is in; None where there is none and none is needed."""
    here = Path.cwd().resolve()
    workspace = Workspace.around(here)
    if workspace is not None or not needed:
        return workspace
    remedy = "go to the folder that you cloned coma-gen into"
    raise UserError(
        Fault(str(here), "must be in a coma-gen checkout (with dvc.yaml and params.yaml)", "", remedy)
    )


def _experiment(workspace: Workspace, options: argparse.Namespace, rest: list[str]) -> int:
    from coma_gen.workspace.presets import preset_flags, read_preset, require_committed_params

    root, name = workspace.root, options.preset
    flags = preset_flags(root, name)
    require_committed_params(root, f"presets/{name}.yaml", read_preset(root, name))
    command = [sys.executable, "-m", "dvc", "exp", "run", *flags, *rest]
    print(f"dvc exp run {' '.join([*flags, *rest])}", flush=True)
    return subprocess.run(command, cwd=root, check=False).returncode


def _verify(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    from coma_gen.workspace.verify import (
        changed_files,
        committed_vendor,
        compare,
        has_committed_params,
        read_vendor,
        table,
    )

    vendor, has_same_params = read_vendor(), has_committed_params(workspace.root)
    allowed, others = changed_files(workspace.root, vendor)
    is_good = not (options.tree and others)
    if has_same_params:
        rows = list(compare(workspace.root, vendor))
        is_good = is_good and all(row.good for row in rows)
        print("\n" + table(rows))
    else:
        print("\nverify: params.yaml is not the committed one; there is no committed build of it")
    if allowed:
        print(
            f"\n`git status` shows {len(allowed)} changed files: the committed build is of a "
            f"{committed_vendor(workspace.root)} processor, and this one ({vendor}) rounds the last bits "
            "of sums otherwise. To put them back: git restore dvc.lock metrics"
        )
    if options.tree and others:
        print("\nverify: files changed that a build must leave as they are:\n  " + "\n  ".join(others))
    return 0 if is_good else 1


def _summary(workspace: Workspace, _options: argparse.Namespace, _rest: list[str]) -> int:
    from coma_gen.workspace.summary import summary

    print(summary(workspace))
    return 0


def _figures(workspace: Workspace, _options: argparse.Namespace, _rest: list[str]) -> int:
    from coma_gen.workspace.summary import figures

    print(figures(workspace))
    return 0


def _ui(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    from coma_gen.tracking.uri import ui_command
    from coma_gen.tracking.view import RUNS_PAGE

    words = shlex.split(ui_command(workspace.home, port=options.port))
    if words[0] != "mlflow":
        print(f"the runs are kept by a server: open {words[0]}")
    else:
        page = f"http://127.0.0.1:{options.port}/{RUNS_PAGE}"
        print(f"{shlex.join(words)}\nopen {page} in some seconds\nstop with Ctrl-C", flush=True)
        os.chdir(workspace.home)
        os.environ |= QUIET | os.environ
        command = [sys.executable, "-m", *words, "--uvicorn-opts", "--log-level warning"]
        os.execv(sys.executable, command)  # noqa: S606 - MLflow as this process, which ends when it is told to
    return 0


if __name__ == "__main__":
    main()
