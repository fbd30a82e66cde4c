"""The `coma-gen` command.

Each sub-command imports its dependencies when it runs, so that `--help` is fast.
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

EXAMPLES = """examples (see also coma-gen COMMAND --help):
  coma-gen play                                            continue MIDI files on a web page, locally
  coma-gen generate my.mid                                 continue a MIDI file in the terminal
  coma-gen experiment maestro -S model.num_layers=2        train on all of MAESTRO, as a DVC experiment
  coma-gen experiment maestro shard                        run only its data stages
  coma-gen experiments                                     compare all runs, best first
  coma-gen finetune /music/midi                            fine-tune a model on your own music
  coma-gen serve --port 5002                               continue MIDI files over HTTP
"""
EXTRAS = {"serve": "serve"}
"""Command -> extra of pyproject.toml that it needs; other commands in a checkout need `pipeline`."""
QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore"}
"""Environment of MLflow's UI, whose twenty log lines at startup would hide the address."""
UNKNOWN = re.compile(r"argument COMMAND: invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)
"""The message of argparse for an unknown command."""


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line error messages."""

    def error(self, message: str) -> NoReturn:
        """Exits with status 2; for an unknown command, suggests the most similar one."""
        if unknown := UNKNOWN.fullmatch(message):
            close = get_close_matches(unknown[1], re.findall(r"[\w-]+", unknown[2]), n=1)
            message = f"there is no command {unknown[1]!r}"
            message += f" (did you mean {close[0]}?)" if close else ""
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with status 1 and a list of faults if the input is invalid."""
    _escape_unprintable()
    parser = _build_parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        parser.print_help()
        sys.exit(2)
    options, rest = parser.parse_known_args(words)
    if rest and not getattr(options, "takes_more", False):
        parser.error(f"coma-gen {options.command} does not accept {' '.join(rest)}")
    try:
        is_anywhere = getattr(options, "anywhere", False)
        workspace = _find_checkout(required=not is_anywhere)
        if extra := EXTRAS.get(options.command, "" if is_anywhere else "pipeline"):
            require_extra(extra, where=f"coma-gen {options.command}")
        status = options.run(workspace, options, rest)
        if sys.stdout is not None:
            sys.stdout.flush()  # so that a broken pipe raises here and is handled
        sys.exit(status)
    except BrokenPipeError:
        if not _is_stdout_closed():
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


def _escape_unprintable() -> None:
    """Prints backslash escapes for characters (as in file names) that the terminal cannot encode."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_stdout_closed() -> bool:
    """Whether the reader of stdout is gone, as with `| head`; if so, discards all further output."""
    if sys.stdout is None:
        return False
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # for the flush at interpreter exit
    return True


def _build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="coma-gen",
        description="Continue piano music with a trained model, and manage the pipeline of this checkout.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = getattr(coma_gen, "__version__", "(not installed)")
    parser.add_argument("--version", action="version", version=f"coma-gen {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (generate, express, play, render, inspect):
        command.add_command(commands)
    experiment = commands.add_parser(
        "experiment",
        help="run a preset of presets/ as a DVC experiment",
        description="Run a preset of presets/ as a DVC experiment, with `dvc exp run`.",
    )
    experiment.add_argument(
        "preset", help="name of the preset, such as maestro; further arguments are passed to `dvc exp run`"
    )
    experiment.set_defaults(run=_run_experiment, takes_more=True)
    for name, run, text in (
        ("summary", _print_summary, "print the results of the pipeline and where they are"),
        ("figures", _print_figures, "print the performances, hours and notes of each split"),
    ):
        commands.add_parser(name, help=text, description=f"{text.capitalize()}.").set_defaults(run=run)
    verify = commands.add_parser(
        "verify",
        help="compare this build with the committed results",
        description="Compare this build with the committed results; exits with status 1 if they differ.",
    )
    verify.add_argument(
        "--tree",
        action="store_true",
        help="also fail if any file was changed or added that a build does not write (for CI)",
    )
    verify.set_defaults(run=_verify)
    for command in (experiments, ablation, result, listen, shard, doctor, finetune, serve):
        command.add_command(commands)
    ui = commands.add_parser(
        "ui",
        help="serve the MLflow UI (on 127.0.0.1)",
        description="Serve the MLflow UI with the runs of this checkout. Stop with Ctrl-C.",
    )
    ui.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default: 5000)")
    ui.set_defaults(run=_serve_ui)
    completion.add_command(commands, _build_parser)
    return parser


def _find_checkout(*, required: bool) -> Workspace | None:
    """Finds the checkout that contains the current directory; None if there is none and none is required."""
    here = Path.cwd().resolve()
    workspace = Workspace.around(here)
    if workspace is not None or not required:
        return workspace
    remedy = "change to the folder that you cloned coma-gen into"
    raise UserError(
        Fault(str(here), "must be in a coma-gen checkout (with dvc.yaml and params.yaml)", "", remedy)
    )


def _run_experiment(workspace: Workspace, options: argparse.Namespace, rest: list[str]) -> int:
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
        print("\nverify: params.yaml was changed, so there are no committed results to compare with")
    if allowed:
        print(
            f"\n`git status` shows {len(allowed)} changed files: the committed results are from a "
            f"{committed_vendor(workspace.root)} processor, and the rounding of sums differs on this one "
            f"({vendor}). To restore them: git restore dvc.lock metrics"
        )
    if options.tree and others:
        print("\nverify: a build must not change these files:\n  " + "\n  ".join(others))
    return 0 if is_good else 1


def _print_summary(workspace: Workspace, _options: argparse.Namespace, _rest: list[str]) -> int:
    from coma_gen.workspace.summary import summary

    print(summary(workspace))
    return 0


def _print_figures(workspace: Workspace, _options: argparse.Namespace, _rest: list[str]) -> int:
    from coma_gen.workspace.summary import figures

    print(figures(workspace))
    return 0


def _serve_ui(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    from coma_gen.tracking.uri import ui_command
    from coma_gen.tracking.view import RUNS_PAGE

    words = shlex.split(ui_command(workspace.home, port=options.port))
    if words[0] != "mlflow":
        print(f"the runs are on a server: open {words[0]}")
    else:
        page = f"http://127.0.0.1:{options.port}/{RUNS_PAGE}"
        print(f"{shlex.join(words)}\nopen {page} in a few seconds\nstop with Ctrl-C", flush=True)
        os.chdir(workspace.home)
        os.environ |= QUIET | os.environ
        command = [sys.executable, "-m", *words, "--uvicorn-opts", "--log-level warning"]
        os.execv(sys.executable, command)  # noqa: S606 - replaces this process, so that signals reach MLflow
    return 0


if __name__ == "__main__":
    main()
