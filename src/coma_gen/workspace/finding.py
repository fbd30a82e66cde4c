"""Finding: one thing that a doctor sees, and what to type."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a checkout that somebody should know.

    Attributes:
        what: the part of it.
        problem: what is the matter there.
        todo: what to type or do.
        is_wrong: something will fail, or has gone wrong; otherwise it is good to know.
    """

    what: str
    problem: str
    todo: str
    is_wrong: bool = True


def size_of(count: float) -> str:
    """So many bytes, as people say it."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def shell_path(path: Path, home: Path) -> str:
    """A path as one types it in a shell at the top of the checkout."""
    return shlex.quote(os.path.relpath(path, home))
