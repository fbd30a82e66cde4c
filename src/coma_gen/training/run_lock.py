"""Lock of a resume folder, so that one process trains at a time.

The operating system releases the lock when the process exits, however it exits.
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
    """Locks `folder` for this process, waiting for another process that trains in it.

    Concurrent experiments that differ only in later stages train the same model: the second one waits, loads
    the first one's last checkpoint and has nothing left to train.
    """
    lock = _acquire(folder)
    try:
        write_atomic(folder / HOLDER, json.dumps({"pid": os.getpid(), "host": platform.node()}) + "\n")
        yield
        (folder / HOLDER).unlink(missing_ok=True)
    finally:
        lock.release()


def _acquire(folder: Path) -> FileLock:
    is_reported = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=POLL_SECONDS)
        except FileNotFoundError:  # a finishing run removed the folder after mkdir
            continue
        except Timeout:
            if not is_reported:
                sys.stderr.write(
                    f"Waiting for {_describe_holder(folder)}, which trains the same model in {folder} ...\n"
                )
                is_reported = True
            continue
        if (folder / LOCK).exists():
            return lock
        lock.release()  # the folder was removed while this process waited


def _describe_holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
