"""A disk that fails at its nth call, or a process that is killed there.

Counted are the calls that change something: opening a file to write, each write and flush, fsync, rename,
mkdir, chmod. What removes files is not counted: on a disk that refuses that, leftovers stay.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

KILLED = 137
COUNTED = ("fsync", "replace", "rename", "mkdir", "chmod", "open")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class _File:
    """A file open for writing. Its flushes are counted, and both halves of each write, the first of which
    reaches the disk by itself.
    """

    def __init__(self, file: Any, step: Callable[[], None]) -> None:
        self._file = file
        self._step = step

    def write(self, content: Any) -> int:
        half = len(content) // 2
        self._step()
        written = int(self._file.write(content[:half]))
        self._file.flush()
        self._step()
        return written + int(self._file.write(content[half:]))

    def flush(self) -> None:
        self._step()
        self._file.flush()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def broken_disk(fail: Callable[[int], None]) -> Iterator[list[int]]:
    """Calls `fail` with the number of each counted call, from 1, just before it; yields [how many so far]."""
    count = [0]
    real_open = io.open
    real = {name: getattr(os, name) for name in COUNTED}

    def step() -> None:
        count[0] += 1
        fail(count[0])

    def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if set(mode).isdisjoint("wax+"):
            return real_open(file, mode, *args, **options)
        if not isinstance(file, int):
            step()
        return _File(real_open(file, mode, *args, **options), step)

    def counted(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if name != "open" or args[1] & WRITING:
                step()
            return real[name](*args, **options)

        return call

    builtins.open = io.open = opened  # type: ignore[assignment]
    for name in COUNTED:
        setattr(os, name, counted(name))
    try:
        yield count
    finally:
        builtins.open = io.open = real_open
        for name, function in real.items():
            setattr(os, name, function)


def full_at(number: int, code: int = errno.ENOSPC, *, stays: bool = False) -> Callable[[int], None]:
    """Fails the call of that number, and no other; or all from there on."""

    def fail(call: int) -> None:
        if call == number or (stays and call > number):
            raise OSError(code, os.strerror(code))

    return fail


def kill_at(number: int) -> Callable[[int], None]:
    """Ends the process at the call of that number, as `kill -9` would: nothing is cleaned up."""

    def fail(call: int) -> None:
        if call == number:
            os._exit(KILLED)

    return fail


def is_killed(work: Callable[[], object], *, at: int) -> bool:
    """Does the work in a copy of this process that is killed at its nth call; False where it has an end."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # a fork beside threads: the child runs none of them
        child = os.fork()
    if child == 0:
        with suppress(BaseException), broken_disk(kill_at(at)):
            work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == KILLED
