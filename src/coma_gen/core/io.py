"""File I/O: atomic writes of files and folders, digests, JSON with fixed precision."""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coma_gen.core.errors import Fault, UserError

FORMER = ".former.partial"
"""Suffix of a folder that is moved aside while its replacement is renamed."""

MAX_PREFIX_BYTES = 200
"""Maximum length of a name that is used as prefix of a temporary name."""

SIGNIFICANT_DIGITS = 6
"""Digits of floats in metrics files: enough to compare, few enough to hide rounding differences."""


def sha256_bytes(content: bytes) -> str:
    """Returns the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes a file atomically: it has either its old or its new content, whatever happens.

    Raises:
        OSError: If the disk is full or read-only; the old content is unchanged and no temporary file is left.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_temporary_prefix(path), suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        replace_durably(Path(name), path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _temporary_prefix(path: Path) -> str:
    """Returns the prefix of temporary names for `path`; a digest replaces names near the 255-byte limit."""
    name = path.name
    if len(os.fsencode(name)) > MAX_PREFIX_BYTES:
        name = f"{sha256_bytes(os.fsencode(name))[:32]}"
    return f".{name}."


@contextmanager
def without_links(path: Path) -> Iterator[Path]:
    """Provides a file or folder without symbolic links, for programs that reject them.

    DVC may replace files with links to its cache, depending on `cache.type`.

    Yields:
        `path` itself if it contains no links, else a temporary copy.
    """
    is_linked = path.is_symlink() or any(child.is_symlink() for child in path.rglob("*"))
    if not is_linked:
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / path.name
        if path.is_dir():
            shutil.copytree(path, plain)
        else:
            shutil.copyfile(path, plain)
        yield plain


def shown_name(path: Path) -> str:
    """Returns the name of a file as printable text, with bytes that are not UTF-8 escaped."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


def check_file(path: Path, name: str | None = None) -> None:
    """Checks that a path is not a pipe or a device, which could block or never end.

    Missing files are not reported here but when they are opened.

    Args:
        path: Path to read.
        name: Name in the error; the path by default.

    Raises:
        UserError: If it is something other than a file or a folder.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(Fault(name or str(path), "must be a file", "a pipe or a device", "save it as one"))


def replace_durably(finished: Path, path: Path) -> None:
    """Renames a finished file or folder and syncs the parent folder, so that it survives a power failure."""
    finished.replace(path)
    _fsync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Builds a temporary folder and moves it to `path` on success; removes it on error.

    On error an existing folder at `path` is unchanged. Only one process at a time may build a folder;
    leftovers of a killed process are removed, and a folder that it had moved aside is restored.

    Yields:
        The temporary folder to write into.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(_temporary_prefix(path))}*.partial"):  # of a killed process
        if left.name.endswith(FORMER) and not path.exists():
            left.replace(path)
        else:
            shutil.rmtree(left, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=_temporary_prefix(path), suffix=".partial", dir=path.parent))
    former = building.with_name(building.name.removesuffix(".partial") + FORMER)
    try:
        yield building
        building.chmod(0o777 & ~_umask())
        if path.exists():
            path.replace(former)
        replace_durably(building, path)
    except BaseException:
        if former.exists() and not path.exists():
            former.replace(path)
        raise
    finally:
        for leftover in (building, former):
            shutil.rmtree(leftover, ignore_errors=True)


def rounded(value: Any) -> Any:
    """Rounds every float in nested data to `SIGNIFICANT_DIGITS`.

    Raises:
        ValueError: For NaN and infinities, which JSON cannot represent.
    """
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a metric is {value}")
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as indented JSON, atomically and deterministically, with rounded floats."""
    write_atomic(path, json.dumps(rounded(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: If the file is missing or not JSON.
    """
    if path.exists() and not path.is_file():
        raise UserError(Fault(str(path), "must be a file", "a folder or a device"))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(Fault(str(path), "this file must exist", "no such file")) from None
    except OSError as error:
        raise UserError(Fault(str(path), "must be a readable file", error.strerror or str(error))) from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested too deeply
        raise UserError(Fault(str(path), "must be JSON", str(error))) from None
