"""Workers that hang or allocate without limit, as a reader of a hostile file might."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from coma_gen.corpus.read import Reading


def wild_read(path: Path) -> Reading:
    """Reads a file, except that some names hang, eat memory, or kill the reader."""
    for word, act in (
        ("00001", lambda: time.sleep(30)),
        ("00002", lambda: bytearray(2**29)),
        ("00003", lambda: os.kill(os.getpid(), signal.SIGKILL)),
        ("00004", lambda: os.kill(os.getpid(), signal.SIGSEGV)),
    ):
        if path.stem == word:
            act()
    return Reading(notes=7, seconds=5.0)
