"""Stage runner: loads params, pins the CPU, handles signals, and reports faults."""

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
from coma_gen.workspace.preflight import check_writable, explain_restore


class Interrupted(KeyboardInterrupt):
    """A stage was interrupted by a signal; `exit_status` follows the convention of shells."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"(by {number.name})")
        self.exit_status = 128 + number


Stage = Callable[[Params, Workspace], None]
PARENT_POLL_SECONDS = 1.0
ENDING = (signal.SIGINT, signal.SIGTERM)
"""Signals that interrupt a stage."""


def run_stage(stage: Stage, root: Path, *, parent: int | None = None, by_dvc: bool = False) -> None:
    """Runs one stage; exits with 1 if the input is invalid, and with 130 or 143 if interrupted.

    Args:
        stage: The stage.
        root: The checkout.
        parent: Parent process id, read in the first line of the script; None to read it now.
        by_dvc: Whether the parent is `dvc`.
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
        sys.exit("\n".join(["", str(error), *filter(None, [explain_restore(root)]), ""]))
    except KeyboardInterrupt as error:
        for number in ENDING:  # the process exits anyway; a second signal would only print a traceback
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
    """Terminates this process with SIGTERM soon after `dvc` has exited, so that it does not run on unnoticed.

    If `dvc` exited while this process was starting, either the parent has changed since the first line of the
    script, or it had changed before that, and is then not the process that DVC's lock names.

    Nothing is sent after another signal: if the whole process group was interrupted, a second signal would
    abort the saving of a checkpoint.
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
    """Whether our parent is not the `dvc` process that DVC's lock names as the writer.

    Returns False if there is no readable lock.
    """
    try:
        owners = json.loads((root / ".dvc" / "tmp" / "rwlock").read_bytes())["write"]
        writers = {int(info["pid"]) for info in owners.values()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return False
    return bool(writers) and parent not in writers
