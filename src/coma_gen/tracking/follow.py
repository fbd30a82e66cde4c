"""Follows a training run from another process: sends its growing curve to MLflow and exits soon after it.

    python -m coma_gen.tracking.follow --curve FILE --speed FILE --home DIR --key K --name N --params FILE
    --parent PID

Errors are logged and retried; the track stage later sends what is still missing. The process runs at low
priority, since it shares the machine with training, and imports MLflow only after its priority is set.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coma_gen.core.errors import UserError
from coma_gen.tracking.csv_tail import read_rows

if TYPE_CHECKING:
    from coma_gen.tracking.run_sync import RunSync
    from coma_gen.tracking.system import SystemMonitor

ENDED_WELL = signal.SIGUSR1
"""Signals that training has succeeded. SIGTERM is not used: schedulers send it to every process of a job."""
NICENESS = 10
POLL_SECONDS = 0.25
PASS_SECONDS = 5.0
MAX_PAUSE = 30.0
"""Intervals between checks of the parent; between passes; and, at most, between passes after errors."""
LAST_PASS_SECONDS = 5.0
PATIENCE = 1.0
UNUSED = ("numpy", "pandas", "pyarrow", "scipy")
"""Optional dependencies of MLflow, hidden from it to save memory; mlflow-skinny works without them."""


class Parent:
    """The training process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.is_ours = os.getppid() == pid

    def is_alive(self) -> bool:
        """Whether it runs. A child process is reparented when it exits, so a reused pid does not matter."""
        if self.is_ours:
            return os.getppid() == self.pid
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


@dataclass
class Follower:
    """Sends new rows of the curve and speed files."""

    curve: Path
    speed: Path
    home: Path
    key: str
    name: str
    params: Path
    _resources: ExitStack = field(init=False, default_factory=ExitStack)
    _sync: RunSync | None = field(init=False, default=None)
    _system: SystemMonitor | None = field(init=False, default=None)
    _last_stamps: object = field(init=False, default=None)

    def send(self) -> None:
        """Sends new rows, if the files changed since the last success.

        Raises:
            UserError: If the store does not answer, or a file is malformed.
        """
        sync = self._sync or self._open()
        now = [_stamp(path) for path in (self.curve, self.speed)]
        if now == self._last_stamps:
            return
        rows = read_rows(self.curve)
        sync.sync_curve(rows)
        sync.sync_speed(read_rows(self.speed))
        if rows and self._system is not None:
            sync.sync_system(rows[-1].step, self._system.read())
        self._last_stamps = now

    def mark(self, *, finished: bool) -> None:
        """Sets the final status of the run; later stages still add to a finished run."""
        if self._sync is not None:
            self._sync.mark("FINISHED" if finished else "KILLED")

    def close(self) -> None:
        """Releases the lock of the run."""
        self._resources.close()
        self._sync = None

    def _open(self) -> RunSync:
        gc.disable()  # garbage collection is a third of MLflow's import time
        try:
            return self._connect()
        finally:
            gc.enable()

    def _connect(self) -> RunSync:
        from coma_gen.config.load import load_params
        from coma_gen.tracking.run_sync import RUNNING, open_run_sync
        from coma_gen.tracking.store import open_store
        from coma_gen.tracking.system import SystemMonitor

        params = load_params(self.params).model_dump(mode="json")
        store = open_store(self.home, patience=PATIENCE)
        sync = self._resources.enter_context(
            open_run_sync(store, key=self.key, name=self.name, params=params)
        )
        try:
            sync.mark(RUNNING)
        except UserError:
            self.close()
            raise
        self._sync, self._system = sync, SystemMonitor()
        gc.freeze()
        return sync


def follow(follower: Follower, parent: Parent, ended_well: list[int]) -> None:
    """Sends until the parent has exited or signaled success, and then once more.

    Args:
        follower: The follower.
        parent: The training process.
        ended_well: Receives an item when the parent signals success.
    """
    pause = PASS_SECONDS
    while True:
        running = parent.is_alive() and not ended_well
        try:
            follower.send()
            pause = PASS_SECONDS
        except UserError as error:
            _log(error)
            pause = min(2 * pause, MAX_PAUSE)
        if not running:
            break
        _wait(pause, lambda: parent.is_alive() and not ended_well)
    deadline = time.monotonic() + LAST_PASS_SECONDS
    while time.monotonic() < deadline:
        try:
            follower.send()
            follower.mark(finished=bool(ended_well))
            return
        except UserError as error:
            _log(error)
            time.sleep(1.0)


def _wait(seconds: float, is_running: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while is_running() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _log(error: Exception) -> None:
    sys.stderr.write(f"{error}\n")
    sys.stderr.flush()


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m coma_gen.tracking.follow", description="Send a growing curve to MLflow."
    )
    for option in ("curve", "speed", "home", "params"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    for option in ("key", "name"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--parent", type=int, required=True)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Runs the follower."""
    given = vars(_arguments(words))
    ended_well: list[int] = []
    signal.signal(ENDED_WELL, lambda signum, _frame: ended_well.append(signum))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # training gets it too; this process exits after it
    sys.modules.update(dict.fromkeys(UNUSED))  # type: ignore[arg-type]
    parent = Parent(given.pop("parent"))
    with suppress(OSError):
        os.nice(NICENESS)
    follower = Follower(**given)
    try:
        follow(follower, parent, ended_well)
    finally:
        follower.close()
    return 0


if __name__ == "__main__":
    os._exit(main())  # interpreter shutdown takes as much CPU as a minute of following
