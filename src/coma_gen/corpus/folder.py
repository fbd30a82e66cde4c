"""A person's own MIDI files, at any depth, with or without a table.

The bytes are copied as they are. A table in MAESTRO's shape (`corpus.csv` or `maestro*.csv` at the top of the
folder) says what they are; without one, titles come from file names and composers from the folders that the
files are in. A file whose very bytes stand in the folder twice is kept once, under the first name: a twin
could land in another split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coma_gen.corpus.performance import (
    CORPUS_TABLE,
    MIDI_SUFFIXES,
    Performance,
    is_midi_name,
    read_table,
    refuse,
)
from coma_gen.corpus.reading import read_all
from coma_gen.errors import Fault, UserError
from coma_gen.files import sha256_bytes
from coma_gen.music.midi import MAX_BYTES

UNKNOWN = "unknown"
_REMEDY = (
    "put .mid or .midi files there, or name another folder: dvc exp run -S download.path=... "
    "(by its absolute path with --temp and --queue, which work in a copy of what git knows)"
)


@dataclass(frozen=True)
class OwnMusic:
    """What was found.

    Attributes:
        performances: rows of what was kept.
        twins: files left out because another has the same bytes.
        not_in_table: MIDI files left out because there is a table and it does not name them.
    """

    performances: list[Performance]
    twins: int
    not_in_table: Sequence[str] = ()


def write_folder(source: Path, folder: Path) -> OwnMusic:
    """Copies a person's MIDI files below `folder`.

    Links are followed only where they lead to something inside `source`; others are refused by name.

    Raises:
        UserError: there is no such folder, no MIDI file in it, a name that cannot be kept, more than one
            table, or a faulty one; one that puts the same bytes into two splits.
    """
    if not source.is_dir():
        raise UserError(Fault("download.path", "must be a folder with MIDI files", str(source), _REMEDY))
    table = _table_of(source)
    rows = read_table(table, folder=source) if table else []
    present = _midi_names(source)
    names = [row.midi_filename for row in rows] or present
    if not names:
        raise UserError(
            Fault("download.path", "must hold a .mid or .midi file", f"none in {source}", _REMEDY)
        )
    refuse([fault for name in names if (fault := _name_fault(source, name))])
    given = {row.midi_filename: row for row in rows}
    kept: dict[str, Performance] = {}
    faults = []
    for name in sorted(names):
        content = _read(source / name)
        digest = sha256_bytes(content)
        if twin := kept.get(digest):
            if name in given and given[name].split != twin.split:
                rule = f"must be in the split of {twin.midi_filename}, whose bytes it has, '{twin.split}'"
                faults.append(Fault(f"{table}, {name}", rule, repr(given[name].split)))
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        row = given.get(name) or _described(name)
        if row.sha256 and row.sha256 != digest:
            raise UserError(
                Fault(str(source / name), f"must have the SHA-256 of the table, {row.sha256}", digest)
            )
        kept[digest] = replace(row, sha256=digest)
    refuse(faults)
    found = list(kept.values())
    if not rows:
        readings = read_all([folder / row.midi_filename for row in found])  # the split refuses the unreadable
        found = [replace(row, duration=each.seconds) for row, each in zip(found, readings, strict=True)]
    return OwnMusic(found, len(names) - len(found), sorted(set(present) - set(names)))


def _table_of(source: Path) -> Path | None:
    """The one table at the top of a folder, if there is one."""
    tables = sorted(
        path
        for path in source.iterdir()
        if path.name == CORPUS_TABLE or re.fullmatch(r"maestro.*\.csv", path.name)
    )
    if len(tables) > 1:
        got = ", ".join(path.name for path in tables)
        raise UserError(
            Fault("download.path", f"must hold one table at most ({source})", got, "keep one of them")
        )
    return tables[0] if tables else None


def _midi_names(source: Path) -> list[str]:
    """Every MIDI file below a folder but hidden ones, as posix paths."""
    found = (path for path in source.rglob("*") if path.suffix.lower() in MIDI_SUFFIXES and path.is_file())
    names = (path.relative_to(source).as_posix() for path in found)
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def _name_fault(source: Path, name: str) -> Fault | None:
    """Why a file cannot be part of the corpus under its name, if so."""
    path = source / name
    if not is_midi_name(name):
        return Fault(
            repr(str(path)),
            "must have a name without backslashes, colons after a letter or control characters",
        )
    if not path.resolve().is_relative_to(source.resolve()):
        return Fault(
            str(path), "must not be a link that leaves the folder", str(path.resolve()), "copy the file"
        )
    return None


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
    title = Path(file).stem.replace("_", " ").strip() or file
    composer = parents[-1].replace("_", " ").strip() if parents else ""
    return Performance(composer or UNKNOWN, title, "", "", name, 0.0)
