"""Follows a training from outside: sends its growing curve to MLflow, and ends soon after it.

    python -m coma_gen.tracking.follow --curve FILE --speed FILE --home DIR --key K --name N --params FILE
    --parent PID

Whatever goes wrong is written down and tried again, and what is still missing in the end is sent by the track
stage. It runs at a low priority, since it shares the machine with training, and imports MLflow only once that
priority is set.
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
"""Says that training has ended well. SIGTERM does not: schedulers send that to every process of a job."""
NICENESS = 10
POLL_SECONDS = 0.25
PASS_SECONDS = 5.0
LONGEST_PAUSE = 30.0
"""Between two looks at the parent; two passes; two passes to a store that does not answer."""
LAST_PASS_SECONDS = 5.0
PATIENCE = 1.0
UNUSED = ("numpy", "pandas", "pyarrow", "scipy")
"""What MLflow loads where it is there, and what mlflow-skinny does without."""


class Parent:
    """The training process, as far as whether it is there."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.is_ours = os.getppid() == pid

    def is_there(self) -> bool:
        """Whether it runs. Who was started by it sees its end at once, whoever gets its number."""
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
    """What is followed, and how far it was sent."""

    curve: Path
    speed: Path
    home: Path
    key: str
    name: str
    params: Path
    _held: ExitStack = field(init=False, default_factory=ExitStack)
    _sync: RunSync | None = field(init=False, default=None)
    _system: SystemMonitor | None = field(init=False, default=None)
    _last_stamps: object = field(init=False, default=None)

    def send(self) -> None:
        """Sends what is new; nothing where the files have not changed since this last succeeded.

        Raises:
            UserError: when the store does not answer, or a file is malformed.
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
        """Says in the store how training ended. Later stages add to a run that is finished."""
        if self._sync is not None:
            self._sync.mark("FINISHED" if finished else "KILLED")

    def close(self) -> None:
        """Lets others write to the run."""
        self._held.close()
        self._sync = None

    def _open(self) -> RunSync:
        gc.disable()  # a third of loading MLflow is looking for garbage
        try:
            return self._opened()
        finally:
            gc.enable()

    def _opened(self) -> RunSync:
        from coma_gen.config.load import load_params
        from coma_gen.tracking.run_sync import RUNNING, open_run_sync
        from coma_gen.tracking.store import open_store
        from coma_gen.tracking.system import SystemMonitor

        params = load_params(self.params).model_dump(mode="json")
        store = open_store(self.home, patience=PATIENCE)
        sync = self._held.enter_context(open_run_sync(store, key=self.key, name=self.name, params=params))
        try:
            sync.mark(RUNNING)
        except UserError:
            self.close()
            raise
        self._sync, self._system = sync, SystemMonitor()
        gc.freeze()
        return sync


def follow(follower: Follower, parent: Parent, ended_well: list[int]) -> None:
    """Sends until the parent is gone or has ended well, and then once more.

    Args:
        follower: what to send.
        parent: whose end to wait for.
        ended_well: gets an item when the parent says that it has ended well.
    """
    pause = PASS_SECONDS
    while True:
        running = parent.is_there() and not ended_well
        try:
            follower.send()
            pause = PASS_SECONDS
        except UserError as error:
            _tell(error)
            pause = min(2 * pause, LONGEST_PAUSE)
        if not running:
            break
        _wait(pause, lambda: parent.is_there() and not ended_well)
    deadline = time.monotonic() + LAST_PASS_SECONDS
    while time.monotonic() < deadline:
        try:
            follower.send()
            follower.mark(finished=bool(ended_well))
            return
        except UserError as error:
            _tell(error)
            time.sleep(1.0)


def _wait(seconds: float, may_go_on: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while may_go_on() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _tell(error: Exception) -> None:
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
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its training, which was sent the same
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
    os._exit(main())  # taking the interpreter down costs as much CPU as a minute of following
