"""What every stage does before and after its one library call: params, CPU, signals, and how faults end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from coma_gen.determinism import pin_cpu
from coma_gen.errors import UserError
from coma_gen.params.load import load_params
from coma_gen.params.sections import Params
from coma_gen.workspace.paths import Workspace

Stage = Callable[[Params, Workspace], None]
PARENT_POLL_SECONDS = 1.0


def run_stage(stage: Stage, root: Path) -> None:
    """Runs one stage and exits: 0 when done, 1 with the faults of the input, 130 or 143 when interrupted."""
    try:
        workspace = Workspace.here(root)
        os.chdir(workspace.root)
        params = load_params(workspace.params)
        pin_cpu(pin=params.runtime.pin_cpu, threads=params.runtime.threads)
        _end_with_parent()
        signal.signal(signal.SIGTERM, _interrupt)
        stage(params, workspace)
    except UserError as error:
        sys.exit(f"\n{error}\n")
    except KeyboardInterrupt as error:
        print("\nInterrupted.", *error.args, file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        sys.exit(f"\n{error.filename or 'disk'}: {error.strerror}\n")


def _interrupt(signum: int, _frame: object) -> None:
    raise KeyboardInterrupt(f"(by {signal.Signals(signum).name})")


def _end_with_parent() -> None:
    """Ends this process, as SIGTERM would, soon after `dvc` has ended: a stage without it would run on
    unseen.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
