"""One trainer at a time in a resume folder.

The lock is the operating system's: it ends with the process that holds it, however that process ends.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from coma_gen.core.io import write_atomic

LOCK = "trainer.lock"
HOLDER = "trainer.json"
POLL_SECONDS = 0.5


@contextmanager
def exclusive_run_lock(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process inside the block, after another trainer there has ended.

    Two experiments that differ in later stages only, queued side by side, train the same weights: the second
    one waits, finds the first one's last checkpoint, and has nothing left to do.
    """
    lock = _acquired(folder)
    try:
        write_atomic(folder / HOLDER, json.dumps({"pid": os.getpid(), "host": platform.node()}) + "\n")
        yield
        (folder / HOLDER).unlink(missing_ok=True)
    finally:
        lock.release()


def _acquired(folder: Path) -> FileLock:
    is_told = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=POLL_SECONDS)
        except FileNotFoundError:  # a finished run's folder was removed between the two lines above
            continue
        except Timeout:
            if not is_told:
                sys.stderr.write(
                    f"Waiting for {_holder(folder)}, which trains the same model in {folder} ...\n"
                )
                is_told = True
            continue
        if (folder / LOCK).exists():
            return lock
        lock.release()  # the lock of a folder that was removed while this process waited


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
