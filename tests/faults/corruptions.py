"""Corruptions of files, as on an unreliable disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], None]


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Without its last byte."""
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    """Without any."""
    path.write_bytes(b"")


def pipe(path: Path) -> None:
    """A pipe, which never ends, under its name."""
    path.unlink()
    os.mkfifo(path)


DAMAGES: tuple[Damage, ...] = (flip, cut, empty, Path.unlink, pipe)
