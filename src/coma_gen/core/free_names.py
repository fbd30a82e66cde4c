"""Unique names for results, safe against concurrent programs.

A name is claimed atomically when the result is complete, by an operation that fails if the name exists.
Nothing is overwritten, and no name is reserved by a program that may never finish.
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

MAX_NAME_BYTES = 255
"""Maximum length of a file name on common file systems."""
UNFINISHED = ".unfinished."
"""Prefix of folders that are being built."""
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


def free_names(stem: str, *, max_bytes: int = MAX_NAME_BYTES) -> Iterator[str]:
    """Yields my, my-02, my-03 and so on, shortened to at most `max_bytes` from the second on."""
    yield stem
    for number in count(2):
        suffix = f"-{number:02d}"
        shorter = stem
        while len(os.fsencode(shorter + suffix)) > max_bytes:
            shorter = shorter[:-1]
        yield shorter + suffix


@contextmanager
def free_folder(target: Path) -> Iterator[list[Path]]:
    """Builds a folder and renames it to the first free name on success; removes it on error.

    An empty folder counts as free. Folders left by killed programs are removed.

    Yields:
        A list with the folder to write into; on success its final path is appended.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target.parent)
    building, lock = _create_locked_folder(target.parent)
    paths = [building]
    try:
        yield paths
        mask = os.umask(0)
        os.umask(mask)
        building.chmod(0o777 & ~mask)
        paths.append(_rename_to_free(building, target))
    finally:
        shutil.rmtree(building, ignore_errors=True)
        os.close(lock)


def _create_locked_folder(parent: Path) -> tuple[Path, int]:
    """Creates a folder and locks it, which marks it as in use while this process lives."""
    while True:
        building = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
        lock = os.open(building, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process found it before it was locked and is removing it
            pass
        else:
            if building.exists():
                return building, lock
        os.close(lock)


def _rename_to_free(building: Path, target: Path) -> Path:
    for name in free_names(target.name):
        try:
            return building.rename(target.with_name(name))  # fails for a file or a non-empty folder
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
    raise AssertionError("names do not end")


def _remove_abandoned(folder: Path) -> None:
    """Removes folders of programs that have exited, whose locks are free."""
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


def move_files(files: Sequence[Path], folder: Path, stem: str) -> list[Path]:
    """Moves files with different suffixes into a folder, under the first stem that is free for all.

    Returns:
        The new paths.
    """
    max_bytes = MAX_NAME_BYTES - max(len(os.fsencode(file.suffix)) for file in files)
    for name in free_names(stem, max_bytes=max_bytes):
        targets = [folder / f"{name}{file.suffix}" for file in files]
        claimed: list[Path] = []
        try:
            for target in targets:
                target.touch(exist_ok=False)
                claimed.append(target)
        except FileExistsError:
            for target in claimed:
                target.unlink()
            continue
        for finished, target in zip(files, targets, strict=True):
            finished.replace(target)
        return targets
    raise AssertionError("names do not end")
