"""One trainer at a time in a resume folder.

The lock is the operating system's: it ends with the process that holds it, however that process ends.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from coma_gen.errors import Fault, UserError
from coma_gen.files import write_atomic

LOCK = "trainer.lock"
HOLDER = "trainer.json"


@contextmanager
def sole_trainer(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process inside the block.

    Raises:
        UserError: at once when another trainer holds it, naming that one. Waiting would only train a second
            time what the other is about to finish.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        rule = "must be used by one trainer at a time"
        remedy = "wait for it to end, or stop it; what it has done is kept"
        raise UserError(Fault(str(folder), rule, f"a second one beside {_holder(folder)}", remedy)) from None
    try:
        write_atomic(folder / HOLDER, json.dumps({"pid": os.getpid(), "host": platform.node()}) + "\n")
        yield
        (folder / HOLDER).unlink(missing_ok=True)
    finally:
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
