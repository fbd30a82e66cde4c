"""Results that never take a name that is taken: the next free one instead, also where two programs want it.

A name is taken as the finished result gets it, by a step that fails where something has
the name already. So nothing is overwritten, and nothing is reserved by a program that may never finish.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

LONGEST_NAME = 255
"""Bytes of a name that common systems hold."""
UNFINISHED = ".unfinished."
"""How the name begins of a folder that is not finished."""
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


def free_names(stem: str, *, room: int = LONGEST_NAME) -> Iterator[str]:
    """my, my-02, my-03 and so on; the later ones take at most so many bytes."""
    yield stem
    for number in count(2):
        tail = f"-{number:02d}"
        shorter = stem
        while len(os.fsencode(shorter + tail)) > room:
            shorter = shorter[:-1]
        yield shorter + tail


@contextmanager
def free_folder(wanted: Path) -> Iterator[list[Path]]:
    """Builds a folder and gives it the first free name when the block ends well; otherwise removes it. An
    empty folder counts as free. What a program left behind that was killed is removed.

    Yields:
        The folder to write into, in a list; when the block has ended, the list ends with its final path.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(wanted.parent)
    building, lock = _locked_folder(wanted.parent)
    paths = [building]
    try:
        yield paths
        mask = os.umask(0)
        os.umask(mask)
        building.chmod(0o777 & ~mask)
        paths.append(_named(building, wanted))
    finally:
        shutil.rmtree(building, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new folder, and a lock on it which tells others that it is not abandoned as long as we live."""
    while True:
        building = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
        lock = os.open(building, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another found it before it was locked, and is removing it
            pass
        else:
            if building.exists():
                return building, lock
        os.close(lock)


def _named(building: Path, wanted: Path) -> Path:
    for name in free_names(wanted.name):
        try:
            return building.rename(wanted.with_name(name))  # not onto a file, or a folder that is not empty
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
    raise AssertionError("names do not end")


def _remove_abandoned(folder: Path) -> None:
    """Removes what was built by programs that are gone: their locks are free."""
    for left in folder.glob(f"{UNFINISHED}*"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def move_files(made: Sequence[Path], folder: Path, stem: str) -> list[Path]:
    """Moves finished files, which differ in their endings, into a folder under the first name that is free
    for all of them.

    Returns:
        What they are called now.
    """
    room = LONGEST_NAME - max(len(os.fsencode(each.suffix)) for each in made)
    for name in free_names(stem, room=room):
        targets = [folder / f"{name}{each.suffix}" for each in made]
        claimed: list[Path] = []
        try:
            for target in targets:
                target.touch(exist_ok=False)
                claimed.append(target)
        except FileExistsError:
            for target in claimed:
                target.unlink()
            continue
        for finished, target in zip(made, targets, strict=True):
            finished.replace(target)
        return targets
    raise AssertionError("names do not end")
