"""Files that are whole or absent: atomic writes, atomic folders, digests, JSON with stated precision."""

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
"""How the name ends of a folder that is moved aside while another is renamed to its path."""

LONGEST_BESIDE = 200
"""Bytes of a name that longer names may begin with."""

SIGNIFICANT_DIGITS = 6
"""Digits kept of every float in a metrics file: enough to compare, few enough not to show the last bits."""


def sha256_bytes(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes `path` so that it holds either its former content or all of the new one, whatever happens.

    Raises:
        OSError: when the disk is full or read-only; the former content is untouched and nothing is left
        behind.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_beside(path), suffix=".partial", dir=path.parent)
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


def _beside(path: Path) -> str:
    """How the names begin of what is written beside `path` before it takes its name.

    A name near the longest that systems know (255 bytes) leaves no room for more; a digest stands for it.
    """
    name = path.name
    if len(os.fsencode(name)) > LONGEST_BESIDE:
        name = f"{sha256_bytes(os.fsencode(name))[:32]}"
    return f".{name}."


@contextmanager
def without_links(path: Path) -> Iterator[Path]:
    """A file or folder as one that holds no links, for programs that refuse them.

    DVC puts links to its cache in place of files where its `cache.type` says so.

    Yields:
        `path` itself where it holds none, else a copy that is gone when the block ends.
    """
    is_linked = path.is_symlink() or any(each.is_symlink() for each in path.rglob("*"))
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
    """The name of a file as text that can be written and drawn, also where its bytes are not UTF-8."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


def check_file(path: Path, name: str | None = None) -> None:
    """Proves that what is there is a file: a pipe would be waited for without end, a device may have none.

    Nothing there is not looked at here: whoever opens it says so.

    Args:
        path: what is to be read.
        name: what the fault calls it; the path by default.

    Raises:
        UserError: it is something else than a file or a folder.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(Fault(name or str(path), "must be a file", "a pipe or a device", "save it as one"))


def replace_durably(finished: Path, path: Path) -> None:
    """Gives a finished file or folder its name, in a way that outlives a power cut."""
    finished.replace(path)
    _fsync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Builds a folder beside `path` and puts it in place when the block ends well; otherwise removes it, and
    what stood there stays.

    One process at a time builds a folder; what an earlier one left behind when it was killed is removed, or
    put back where it had been moved aside.

    Yields:
        The temporary folder to write into.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(_beside(path))}*.partial"):  # of a process that was killed
        if left.name.endswith(FORMER) and not path.exists():
            left.replace(path)
        else:
            shutil.rmtree(left, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=_beside(path), suffix=".partial", dir=path.parent))
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
    """`value` with every float, however deep, rounded to `SIGNIFICANT_DIGITS`.

    Raises:
        ValueError: for NaN and infinities, which JSON cannot say.
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
    """Writes plain data as readable JSON, byte-stable, atomically, floats at `SIGNIFICANT_DIGITS`."""
    write_atomic(path, json.dumps(rounded(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: when the file is missing or not JSON.
    """
    if path.exists() and not path.is_file():
        raise UserError(Fault(str(path), "must be a file", "a folder or a device"))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(Fault(str(path), "this file must exist", "no such file")) from None
    except OSError as error:
        raise UserError(Fault(str(path), "must be a readable file", error.strerror or str(error))) from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or without end
        raise UserError(Fault(str(path), "must be JSON", str(error))) from None
