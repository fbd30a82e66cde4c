"""The source "folder": the user's MIDI files, at any depth, with or without a table.

Files are copied byte for byte. A table in MAESTRO's format (`corpus.csv` or `maestro*.csv`) describes them;
it must be at the top of the folder, or of the one subfolder that contains all music, as MAESTRO's archive
unpacks. Without a table, titles come from file names and composers from folder names. Of files with identical
bytes only the first is copied: its twin could otherwise be assigned to another split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.corpus.read import read_all
from coma_gen.corpus.table import (
    CORPUS_TABLE,
    MIDI_SUFFIXES,
    Performance,
    column_name,
    is_midi_name,
    plain_text,
    raise_faults,
    read_table,
)
from coma_gen.midi.io import MAX_BYTES

UNKNOWN = "unknown"
MAX_HEADER = 4096
"""Bytes of a CSV that are read to decide whether it is a table."""
_TABLE = re.compile(rf"{re.escape(CORPUS_TABLE)}|maestro.*\.csv", re.IGNORECASE)
_REMEDY = (
    "put .mid or .midi files there, or name another folder: dvc exp run -S download.path=... "
    "(by its absolute path with --temp and --queue, which work in a copy of what git knows)"
)


@dataclass(frozen=True)
class CopiedFolder:
    """Result of copying a folder.

    Attributes:
        performances: Rows of the copied files.
        twins: Number of files dropped because another has the same bytes.
        not_in_table: MIDI files dropped because the table does not name them.
    """

    performances: list[Performance]
    twins: int
    not_in_table: Sequence[str] = ()


def write_folder(source: Path, folder: Path) -> CopiedFolder:
    """Copies the user's MIDI files to `folder`.

    Links to files inside `source` are followed; links that leave it are errors. Linked folders inside
    `source` are not followed, since their files are found under their own names.

    Raises:
        UserError: The folder does not exist, has no MIDI file, an invalid file name, more than one table, or
            an invalid table, including one that puts identical files into two splits.
    """
    if not source.is_dir():
        raise UserError(Fault("download.path", "must be a folder with MIDI files", str(source), _REMEDY))
    found, unfollowed = _list_files(source)
    raise_faults(unfollowed)
    table = _find_table(source, found)
    source = table.parent if table else source
    rows = read_table(table, folder=source) if table else []
    music = [path for path in found if path.suffix.lower() in MIDI_SUFFIXES]
    present = [path.relative_to(source).as_posix() for path in music]
    names = [row.midi_filename for row in rows] or present
    if not names:
        raise UserError(
            Fault(
                "download.path",
                "must hold a MIDI file (.mid, .midi, .smf, .kar)",
                f"none in {source}",
                _REMEDY,
            )
        )
    raise_faults([fault for name in names if (fault := _check_name(source, name))])
    by_digest = _copy(source, folder, names, {row.midi_filename: row for row in rows})
    described = list(by_digest.values())
    if not rows:
        readings = read_all(
            [folder / row.midi_filename for row in described]
        )  # the split reports unreadable files
        pairs = zip(described, readings, strict=True)
        described = [replace(row, duration=each.seconds) for row, each in pairs]
    return CopiedFolder(described, len(names) - len(described), sorted(set(present) - set(names)))


def _copy(
    source: Path, folder: Path, names: Sequence[str], given: Mapping[str, Performance]
) -> dict[str, Performance]:
    """Copies files with unique content; returns digest -> row, from the table if it has one.

    Raises:
        UserError: A file does not have the digest of its row, or is in two splits.
    """
    by_digest: dict[str, Performance] = {}
    faults = []
    for name in sorted(names):
        content = _read_bytes(source / name)
        digest = sha256_bytes(content)
        if twin := by_digest.get(digest):
            if name in given and given[name].split != twin.split:
                rule = f"must be in the split of {twin.midi_filename}, whose bytes it has, '{twin.split}'"
                faults.append(Fault(str(source / name), rule, repr(given[name].split)))
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        row = given.get(name) or _describe_file(name)
        if row.sha256 and row.sha256 != digest:
            rule = f"must have the SHA-256 of the table, {row.sha256}"
            raise UserError(Fault(str(source / name), rule, digest))
        by_digest[digest] = replace(row, sha256=digest)
    raise_faults(faults)
    return by_digest


def _find_table(source: Path, found: Sequence[Path]) -> Path | None:
    """Finds the table at the top of a folder, or of the one subfolder that contains all music.

    Raises:
        UserError: There is more than one table, one in another folder, or one under another name.
    """
    known = [path for path in found if _TABLE.fullmatch(path.name)]
    tables = [path for path in known if path.parent == source]
    if len(tables) > 1:
        got = ", ".join(path.name for path in tables)
        raise UserError(
            Fault("download.path", f"must hold one table at most ({source})", got, "keep one of them")
        )
    if tables:
        return tables[0]
    rule = f"must have a table of the music at its top, as {CORPUS_TABLE} or maestro*.csv ({source})"
    if others := [path for path in found if path.parent == source and _is_table(path)]:
        got = ", ".join(path.name for path in others)
        remedy = f"rename it to {CORPUS_TABLE}"
        raise UserError(Fault("download.path", rule, got, remedy))
    music = [path for path in found if path.suffix.lower() in MIDI_SUFFIXES]
    if len(known) == 1 and all(path.is_relative_to(known[0].parent) for path in music):
        return known[0]
    if known:
        got = ", ".join(path.relative_to(source).as_posix() for path in known)
        raise UserError(
            Fault("download.path", rule, got, "name the folder that holds both, or remove the tables")
        )
    return None


def _is_table(path: Path) -> bool:
    """Whether the file is a CSV with a column `midi_filename`."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.readline(MAX_HEADER).decode("utf-8-sig", "replace")
    return "midi_filename" in [column_name(cell) for cell in header.replace(";", ",").split(",")]


def _list_files(source: Path) -> tuple[list[Path], list[Fault]]:
    """Lists all files of a folder except hidden ones, sorted, and the faults of invalid links."""
    found, faults = [], []
    for directory, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            path = Path(directory, name)
            if path.is_symlink() and not _is_inside(path, source):
                remedy = "copy the folder, or name it itself as download.path"
                faults.append(_build_link_fault(path, remedy))
        for name in files:
            path = Path(directory, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() in MIDI_SUFFIXES and not path.is_file():
                got = "a link to nothing" if path.is_symlink() else "a pipe or a device"
                faults.append(Fault(str(path), "must be a file", got, "remove it"))
            found.append(path)
    return sorted(found), sorted(faults, key=str)


def _is_inside(path: Path, source: Path) -> bool:
    return path.resolve().is_relative_to(source.resolve())


def _build_link_fault(path: Path, remedy: str) -> Fault:
    rule = "must not be a link that leaves the folder"
    return Fault(str(path), rule, str(path.resolve()), remedy)


def _check_name(source: Path, name: str) -> Fault | None:
    """Returns the fault of a file name that the corpus does not allow; None for a valid one."""
    path = source / name
    where = str(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return Fault(where, "must have a name in UTF-8", repr(os.fsencode(path.name)), "rename it")
    if not is_midi_name(name):
        rule = (
            "must have a name without backslashes, drive letters, control characters, "
            "or characters that change the direction of writing"
        )
        return Fault(where, rule, "", "rename it")
    return None if _is_inside(path, source) else _build_link_fault(path, "copy the file")


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(Fault(str(path), f"must have at most {MAX_BYTES // 2**20} MiB", "more"))
        return path.read_bytes()
    except OSError as error:
        raise UserError(Fault(str(path), "must be readable", error.strerror or str(error))) from None


def _describe_file(name: str) -> Performance:
    """Builds a row from the path of a file; its folder is the composer."""
    *parents, file = name.split("/")
    title = plain_text(Path(file).stem.replace("_", " ")).strip() or file
    composer = plain_text(parents[-1].replace("_", " ")).strip() if parents else ""
    return Performance(composer or UNKNOWN, title, "", "", name, 0.0)
