"""A finding of `coma-gen doctor`: a problem and its fix."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem or note about a checkout.

    Attributes:
        what: Component, such as "git".
        problem: Description of the problem.
        todo: Command or action that fixes it.
        is_wrong: Whether it is an error; otherwise it is a note.
    """

    what: str
    problem: str
    todo: str
    is_wrong: bool = True


def size_of(count: float) -> str:
    """Formats a number of bytes with a binary unit."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def shell_path(path: Path, home: Path) -> str:
    """Quotes a path, relative to the checkout, for the shell."""
    return shlex.quote(os.path.relpath(path, home))
