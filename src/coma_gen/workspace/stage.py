"""What every stage does before and after its one library call: params, CPU, signals, and how faults end."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from coma_gen.config.load import load_params
from coma_gen.config.schema import Params
from coma_gen.core.errors import UserError, memory_fault
from coma_gen.core.seeding import pin_cpu
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.preflight import check_writable, way_back


class Interrupted(KeyboardInterrupt):
    """A stage was asked to end by a signal; `exit_status` is what shells make of that."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"(by {number.name})")
        self.exit_status = 128 + number


Stage = Callable[[Params, Workspace], None]
PARENT_POLL_SECONDS = 1.0
ENDING = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask a stage to end."""


def run_stage(stage: Stage, root: Path, *, parent: int | None = None, by_dvc: bool = False) -> None:
    """Runs one stage and exits: 0 when done, 1 with the faults of the input, 130 or 143 when interrupted.

    Args:
        stage: what to run.
        root: the checkout that it works in.
        parent: the process that started this one, as the script's first line saw it; None asks now.
        by_dvc: whether that was `dvc`.
    """
    try:
        workspace = Workspace.here(root)
        signal.signal(signal.SIGTERM, _interrupt)
        _end_with_parent(os.getppid() if parent is None else parent, workspace.root if by_dvc else None)
        os.chdir(workspace.root)
        params = load_params(workspace.params)
        check_writable(workspace)
        pin_cpu(pin=params.runtime.pin_cpu, threads=params.runtime.threads)
        stage(params, workspace)
    except UserError as error:
        sys.exit("\n".join(["", str(error), *filter(None, [way_back(root)]), ""]))
    except KeyboardInterrupt as error:
        for number in ENDING:  # it is ending: one more would only add a traceback
            signal.signal(number, signal.SIG_IGN)
        print("\nInterrupted.", *error.args, file=sys.stderr)  # noqa: T201
        sys.exit(getattr(error, "exit_status", 128 + signal.SIGINT))
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        sys.exit(f"\n{error.filename or 'disk'}: {error.strerror}\n")
    except (MemoryError, RuntimeError) as error:
        if (fault := memory_fault(error)) is None:
            raise
        sys.exit(f"\n{fault}\n")


def _interrupt(signum: int, _frame: object) -> None:
    raise Interrupted(signal.Signals(signum))


def _end_with_parent(parent: int, dvc_root: Path | None) -> None:
    """Ends this process, as SIGTERM would, soon after `dvc` has ended: a stage without it would run on
    unseen.

    What ended while this process was still starting shows in two ways: its parent is another one by now; or
    it was already when the script's first line asked, and then it is not the one that DVC's lock names.

    Not where a signal came before: who stops the whole group, `dvc` with its stage, asks once, and a second
    signal would cut off what the first one lets the stage save.
    """
    if os.getppid() != parent or (dvc_root is not None and _is_orphan(parent, dvc_root)):
        os.kill(os.getpid(), signal.SIGTERM)
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def watch() -> None:
        while True:
            ready, _, _ = select.select([read_end], [], [], PARENT_POLL_SECONDS)
            if ready and not set(ENDING).isdisjoint(os.read(read_end, 1024)):
                return
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _is_orphan(parent: int, root: Path) -> bool:
    """Whether `dvc`, which says in its lock which process writes what, is another process than our parent.

    Where there is no lock to be read, nobody can tell.
    """
    try:
        held = json.loads((root / ".dvc" / "tmp" / "rwlock").read_bytes())["write"]
        writers = {int(info["pid"]) for info in held.values()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return False
    return bool(writers) and parent not in writers
