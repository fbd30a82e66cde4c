"""A person's own MIDI files, at any depth, with or without a table.

The bytes are copied as they are. A table in MAESTRO's shape (`corpus.csv` or `maestro*.csv`) says what they
are; it lies at the top of the folder, or of the one folder in it that holds all the music, as MAESTRO's own
archive unpacks. Without one, titles come from file names and composers from the files' folders.
A file whose very bytes stand in the folder twice is kept once, under the first name: a twin could land in
another split.
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
    read_table,
    refuse,
)
from coma_gen.midi.io import MAX_BYTES

UNKNOWN = "unknown"
MAX_HEADER = 4096
"""Bytes of a CSV that are looked at to see whether it is a table."""
_TABLE = re.compile(rf"{re.escape(CORPUS_TABLE)}|maestro.*\.csv", re.IGNORECASE)
_REMEDY = (
    "put .mid or .midi files there, or name another folder: dvc exp run -S download.path=... "
    "(by its absolute path with --temp and --queue, which work in a copy of what git knows)"
)


@dataclass(frozen=True)
class OwnMusic:
    """What was found.

    Attributes:
        performances: rows of what was copied.
        twins: files left out because another has the same bytes.
        not_in_table: MIDI files left out because there is a table and it does not name them.
    """

    performances: list[Performance]
    twins: int
    not_in_table: Sequence[str] = ()


def write_folder(source: Path, folder: Path) -> OwnMusic:
    """Copies a person's MIDI files below `folder`.

    Links are followed only where they lead to something inside `source`; others are refused by name. What a
    linked folder inside holds is there under its own name already.

    Raises:
        UserError: there is no such folder, no MIDI file in it, a name that cannot be kept, more than one
            table, or a faulty one; one that puts the same bytes into two splits.
    """
    if not source.is_dir():
        raise UserError(Fault("download.path", "must be a folder with MIDI files", str(source), _REMEDY))
    found, unfollowed = _found(source)
    refuse(unfollowed)
    table = _table_of(source, found)
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
    refuse([fault for name in names if (fault := _name_fault(source, name))])
    by_digest = _copy(source, folder, names, {row.midi_filename: row for row in rows})
    described = list(by_digest.values())
    if not rows:
        readings = read_all([folder / row.midi_filename for row in described])  # the split refuses what fails
        pairs = zip(described, readings, strict=True)
        described = [replace(row, duration=each.seconds) for row, each in pairs]
    return OwnMusic(described, len(names) - len(described), sorted(set(present) - set(names)))


def _copy(
    source: Path, folder: Path, names: Sequence[str], given: Mapping[str, Performance]
) -> dict[str, Performance]:
    """Copies files, each content once; returns their rows, those of the table where it has them, by digest.

    Raises:
        UserError: a file is not what its row says, or stands in two splits.
    """
    by_digest: dict[str, Performance] = {}
    faults = []
    for name in sorted(names):
        content = _read(source / name)
        digest = sha256_bytes(content)
        if twin := by_digest.get(digest):
            if name in given and given[name].split != twin.split:
                rule = f"must be in the split of {twin.midi_filename}, whose bytes it has, '{twin.split}'"
                faults.append(Fault(str(source / name), rule, repr(given[name].split)))
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        row = given.get(name) or _described(name)
        if row.sha256 and row.sha256 != digest:
            rule = f"must have the SHA-256 of the table, {row.sha256}"
            raise UserError(Fault(str(source / name), rule, digest))
        by_digest[digest] = replace(row, sha256=digest)
    refuse(faults)
    return by_digest


def _table_of(source: Path, found: Sequence[Path]) -> Path | None:
    """The one table at the top of a folder, or of the one folder in it that holds all of its music.

    Raises:
        UserError: more than one, one in another folder, or what must be one under another name.
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
    """Whether a CSV's first line names a column of ours that says what file a row is of."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.readline(MAX_HEADER).decode("utf-8-sig", "replace")
    return "midi_filename" in [column_name(cell) for cell in header.replace(";", ",").split(",")]


def _found(source: Path) -> tuple[list[Path], list[Fault]]:
    """Everything below a folder but hidden ones, sorted, and faults of what cannot be followed."""
    found, faults = [], []
    for directory, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            path = Path(directory, name)
            if path.is_symlink() and not _is_inside(path, source):
                remedy = "copy the folder, or name it itself as download.path"
                faults.append(_left(path, remedy))
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


def _left(path: Path, remedy: str) -> Fault:
    rule = "must not be a link that leaves the folder"
    return Fault(str(path), rule, str(path.resolve()), remedy)


def _name_fault(source: Path, name: str) -> Fault | None:
    """Why a file cannot be part of the corpus under its name, if so."""
    path = source / name
    where = str(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return Fault(where, "must have a name in UTF-8", repr(os.fsencode(path.name)), "rename it")
    if not is_midi_name(name):
        rule = (
            "must have a name without backslashes, a colon behind one letter, control characters, "
            "or characters that turn the direction of writing"
        )
        return Fault(where, rule, "", "rename it")
    return None if _is_inside(path, source) else _left(path, "copy the file")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(Fault(str(path), f"must have at most {MAX_BYTES // 2**20} MiB", "more"))
        return path.read_bytes()
    except OSError as error:
        raise UserError(Fault(str(path), "must be readable", error.strerror or str(error))) from None


def _described(name: str) -> Performance:
    """A row made from nothing but a file's path: the folder it is in is the composer."""
    *parents, file = name.split("/")
    title = plain_text(Path(file).stem.replace("_", " ")).strip() or file
    composer = plain_text(parents[-1].replace("_", " ")).strip() if parents else ""
    return Performance(composer or UNKNOWN, title, "", "", name, 0.0)
