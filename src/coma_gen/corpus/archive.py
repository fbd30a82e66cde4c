"""Reading archives that nobody has vouched for: no name leaves the folder, nothing inflates without bound.

Entries are yielded as bytes, never extracted, so the caller alone decides what is written where. The first
bad entry refuses the archive as a whole; callers write into a folder that only takes its place when all is
well.
"""

from __future__ import annotations

import gzip
import io
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coma_gen.errors import Fault, UserError


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold at most.

    Attributes:
        entries: files and folders.
        file_bytes: of one file, inflated.
        total_bytes: of all files, inflated.
        ratio: inflated bytes for each byte of the archive, beyond the first 16 MiB.
    """

    entries: int = 20_000
    file_bytes: int = 64 * 2**20
    total_bytes: int = 2**30
    ratio: int = 100


LIMITS = Limits()
_FREE_BYTES = 16 * 2**20
_BLOCK = 2**20
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
)


def read_zip(path: Path, *, limits: Limits = LIMITS) -> Iterator[tuple[str, bytes]]:
    """The files of a zip archive, in its order, as (posix name, content).

    Raises:
        UserError: not a zip, damaged, encrypted, a name that leaves the folder, a link or device, a name that
            stands twice (also in another case), or more than the limits.
    """
    account = _Account(path, limits)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            for entry in entries:
                account.admit(entry.orig_filename)
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise account.fault(
                        "must hold files and folders only", f"a link or device, {entry.filename!r}"
                    )
            for entry in entries:
                if not entry.is_dir():
                    with archive.open(entry) as file:
                        yield entry.filename, account.inflate(entry.filename, file)
    except _DAMAGED as error:
        raise account.fault("must be a whole zip archive", str(error) or type(error).__name__) from None


def read_tar_gz(path: Path, *, limits: Limits = LIMITS) -> Iterator[tuple[str, bytes]]:
    """The files of a gzipped tar archive, in its order, as (posix name, content).

    Raises:
        UserError: as `read_zip`.
    """
    account = _Account(path, limits)
    try:
        with gzip.open(path) as inflated:
            stream = _Bounded(inflated, limits.total_bytes)
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for entry in archive:
                    account.admit(entry.name)
                    if not (entry.isreg() or entry.isdir()):
                        raise account.fault(
                            "must hold files and folders only", f"a link or device, {entry.name!r}"
                        )
                    file = archive.extractfile(entry) if entry.isreg() else None
                    if file is not None:
                        yield entry.name, account.inflate(entry.name, file)
    except _DAMAGED as error:
        raise account.fault("must be a whole tar.gz archive", str(error) or type(error).__name__) from None


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Account:
    """What has been seen of one archive so far, held against the limits."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._names: set[str] = set()
        self._bytes = 0
        size = path.stat().st_size if path.is_file() else 0
        self._most = min(limits.total_bytes, max(_FREE_BYTES, size * limits.ratio))

    def fault(self, rule: str, got: str) -> UserError:
        return UserError(Fault(str(self._path), rule, got))

    def admit(self, name: str) -> None:
        """Refuses a name that leaves the folder or stands twice, and one entry too many."""
        bare = name.removesuffix("/")
        unsafe = name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name or "\0" in name
        if unsafe or any(part in ("", "..") for part in bare.split("/")):
            raise self.fault("must hold names inside one folder", repr(name))
        if bare.casefold() in self._names:
            raise self.fault("must not hold a name twice, whatever its case", repr(name))
        self._names.add(bare.casefold())
        if len(self._names) > self._limits.entries:
            raise self.fault(f"must hold at most {self._limits.entries:,} entries", "more")

    def inflate(self, name: str, file: _Readable) -> bytes:
        """The whole of one file, read block by block so that no claimed size is believed."""
        content = bytearray()
        while block := file.read(_BLOCK):
            content += block
            self._bytes += len(block)
            if len(content) > self._limits.file_bytes:
                raise self.fault(
                    f"must hold files of at most {self._limits.file_bytes:,} bytes", f"more, {name!r}"
                )
            if self._bytes > self._most:
                raise self.fault(f"must inflate to at most {self._most:,} bytes", f"more, at {name!r}")
        return bytes(content)


class _Bounded(io.RawIOBase):
    """A stream that ends in an error after so many bytes, whoever reads it."""

    def __init__(self, stream: _Readable, most: int) -> None:
        super().__init__()
        self._stream = stream
        self._left = most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("more bytes than the limit")
        return content
