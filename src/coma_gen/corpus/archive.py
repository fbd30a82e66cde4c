"""Reads untrusted archives: names must stay inside one folder, and inflated sizes are bounded.

Entries are yielded as bytes, never extracted, so the caller decides where they are written. The first bad
entry rejects the whole archive; callers write into a temporary folder that is renamed at the end.
"""

from __future__ import annotations

import gzip
import io
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from coma_gen.core.errors import Fault, UserError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on an archive.

    Attributes:
        entries: Number of files and folders.
        file_bytes: Inflated size of one file.
        total_bytes: Inflated size of all files.
        ratio: Inflated bytes per byte of the archive; 16 MiB are allowed for any archive.
    """

    entries: int = 20_000
    file_bytes: int = 64 * 2**20
    total_bytes: int = 2**30
    ratio: int = 100


LIMITS = Limits()
_FREE_BYTES = 16 * 2**20
_BLOCK = 2**20
_MAX_READ = 32 * 2**20
"""Maximum size of a zip's central directory: an entry takes about ten times as much in memory."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Other methods allocate as much memory as the archive claims, before any byte can be counted."""

_MAX_NAME_BYTES = 255
_DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    ArithmeticError,
    LookupError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
)
"""Exceptions that the standard library raises on damaged archives."""


def read_zip(path: Path, *, limits: Limits = LIMITS) -> Iterator[tuple[str, bytes]]:
    """Yields the files of a zip archive, in its order, as (posix name, content).

    Raises:
        UserError: The archive is not a zip, damaged or encrypted, uses another compression method, exceeds
            the limits, or contains a name that leaves the folder, a link or device, or a duplicate name (also
            in another case, or as a file and as a folder).
    """
    budget = _InflateBudget(path, limits)
    with budget.convert_errors("zip"), _CappedReader(path) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        for entry in entries:
            budget.admit(entry.orig_filename, is_folder=entry.is_dir())
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise budget.fault(
                    "must hold files and folders only", f"a link or device, {entry.filename!r}"
                )
            if entry.compress_type not in _METHODS:
                got = f"method {entry.compress_type}, {entry.filename!r}"
                raise budget.fault("must hold files that are stored or deflated", got)
        for entry in entries:
            if not entry.is_dir():
                budget.at = entry.filename
                with archive.open(entry) as packed:
                    content = budget.inflate(packed)
                if len(content) != entry.file_size:
                    raise zipfile.BadZipFile(f"{len(content):,} bytes where {entry.file_size:,} are claimed")
                yield entry.filename, content


def read_tar_gz(path: Path, *, limits: Limits = LIMITS) -> Iterator[tuple[str, bytes]]:
    """Yields the files of a gzipped tar archive, in its order, as (posix name, content).

    Raises:
        UserError: See `read_zip`.
    """
    budget = _InflateBudget(path, limits)
    with budget.convert_errors("tar.gz"), gzip.open(path) as inflated:
        stream = _BoundedReader(inflated, budget)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                budget.admit(entry.name, is_folder=entry.isdir())
                if not (entry.isreg() or entry.isdir()):
                    raise budget.fault(
                        "must hold files and folders only", f"a link or device, {entry.name!r}"
                    )
                budget.at = entry.name
                packed = archive.extractfile(entry) if entry.isreg() else None
                if packed is not None:
                    yield entry.name, budget.inflate(packed)
        while stream.read(_BLOCK):  # up to the checksum at the end
            pass
        if stream.tail.strip(b"\0") or len(stream.tail) < tarfile.BLOCKSIZE:
            raise EOFError("no end: it is cut off")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _InflateBudget:
    """Checks the entries of one archive against the limits.

    Attributes:
        most: Maximum inflated size of the archive.
        at: Name of the file that is being read.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._bytes = 0
        size = path.stat().st_size if path.is_file() else 0
        self.most = min(limits.total_bytes, max(_FREE_BYTES, size * limits.ratio))
        self.at = ""

    def fault(self, rule: str, got: str) -> UserError:
        return UserError(Fault(str(self._path), rule, got))

    @contextmanager
    def convert_errors(self, kind: str) -> Iterator[None]:
        """Converts exceptions of the standard library to the error of a damaged archive."""
        try:
            yield
        except _DAMAGE_ERRORS as error:
            where = f" at {self.at!r}" if self.at else ""
            got = f"{str(error) or type(error).__name__}{where}"
            raise self.fault(f"must be a whole {kind} archive", got) from None

    def admit(self, name: str, *, is_folder: bool) -> None:
        """Checks that a name stays inside the folder and is unique, and counts it."""
        parts = name.removesuffix("/").split("/")
        unsafe = name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\\" in name or "\0" in name
        if unsafe or any(part in ("", ".", "..") for part in parts):
            raise self.fault("must hold names inside one folder", repr(name))
        if any(len(part.encode("utf-8", "surrogateescape")) > _MAX_NAME_BYTES for part in parts):
            raise self.fault(f"must hold names of at most {_MAX_NAME_BYTES} bytes", repr(name))
        plain = PurePosixPath(unicodedata.normalize("NFC", "/".join(parts)).casefold())
        above = {str(folder) for folder in plain.parents} - {"."}
        if (
            str(plain) in self._files
            or (not is_folder and str(plain) in self._folders)
            or above & self._files
        ):
            raise self.fault("must not hold a name twice, whatever its case", repr(name))
        self._folders |= above
        (self._folders if is_folder else self._files).add(str(plain))
        if len(self._files) + len(self._folders) > self._limits.entries:
            raise self.fault(f"must hold at most {self._limits.entries:,} entries", "more")

    def inflate(self, file: _Readable) -> bytes:
        """Inflates one file block by block, so that claimed sizes are not trusted."""
        content = bytearray()
        while block := file.read(_BLOCK):
            content += block
            self._bytes += len(block)
            if len(content) > self._limits.file_bytes:
                rule = f"must hold files of at most {self._limits.file_bytes:,} bytes"
                raise self.fault(rule, f"more, {self.at!r}")
            if self._bytes > self.most:
                raise self.too_large()
        return bytes(content)

    def too_large(self) -> UserError:
        return self.fault(f"must inflate to at most {self.most:,} bytes", f"more, at {self.at!r}")


class _CappedReader(io.FileIO):
    """A file with a maximum read size: zipfile reads the whole central directory at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(_MAX_READ if size is None or size < 0 else min(size, _MAX_READ))
        if len(content or b"") == _MAX_READ:
            raise ValueError("a table of entries of more bytes than the limit")
        return content or b""


class _BoundedReader(io.RawIOBase):
    """A stream that raises an error beyond a maximum number of bytes.

    Attributes:
        tail: The last block that was read; at the end of an archive it is all zeros.
    """

    def __init__(self, stream: _Readable, budget: _InflateBudget) -> None:
        super().__init__()
        self._stream = stream
        self._budget = budget
        self._left = budget.most
        self.tail = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise self._budget.too_large()
        self.tail = (self.tail + content[-tarfile.BLOCKSIZE :])[-tarfile.BLOCKSIZE :]
        return content
