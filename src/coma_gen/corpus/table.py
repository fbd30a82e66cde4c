"""The table of performances, one row per recording, used from the corpus to the scores of each piece.

The columns are those of MAESTRO (Hawthorne et al. 2019), so that its CSV is a valid table; later stages only
add columns. All faults of a table are reported together, each with its row and value.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import check_file, write_atomic

SPLITS = ("train", "validation", "test")
MIDI_SUFFIXES = (".mid", ".midi", ".smf", ".kar", ".rmi")
"""Suffixes of MIDI files; files with other content (.rmi is a container) are reported by the split."""
CORPUS_TABLE = "corpus.csv"
REQUIRED = ("canonical_composer", "canonical_title", "midi_filename", "duration")
COLUMNS = (
    "canonical_composer",
    "canonical_title",
    "split",
    "year",
    "midi_filename",
    "audio_filename",
    "duration",
    "sha256",
)
DIRECTION_CHANGES = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Bidirectional classes that change the direction of writing, so that a name reads as another."""
NOTES = "notes"
"""The column that the split adds."""
MAX_FAULTS = 20
"""Maximum number of faults that are listed; further ones are counted."""

MAX_BYTES = 256 * 2**20
NEAR = 0.8
"""Similarity to a column's name (0 to 1) from which a header is reported as mistyped."""

MAX_DURATION = 86_400.0
"""Maximum length of a performance in seconds."""


@dataclass(frozen=True, slots=True)
class Performance:
    """One recording of one composition.

    Attributes:
        composer: Composer as spelled in the corpus; may contain "/".
        title: Title of the composition.
        split: "train", "validation" or "test"; "" if not assigned.
        year: Year of the recording; "" if unknown.
        midi_filename: Posix path relative to the corpus folder.
        duration: Length in seconds.
        sha256: SHA-256 of the MIDI file; "" if not yet known.
        notes: Number of notes; None if not yet counted.
        audio_filename: Name in the corpus; the audio is not used.
    """

    composer: str
    title: str
    split: str
    year: str
    midi_filename: str
    duration: float
    sha256: str = ""
    notes: int | None = None
    audio_filename: str = ""


def read_table(path: Path, *, folder: Path | None = None) -> list[Performance]:
    """Reads a table of performances in UTF-8, with or without a byte order mark, with any line endings.

    Column names may differ in case and surrounding spaces; nearly correct names are errors; other columns are
    ignored. Composers and titles are normalized (`plain_text`).

    Args:
        path: CSV file with at least the columns `REQUIRED`.
        folder: Folder in which every `midi_filename` must exist; None skips this check.

    Raises:
        UserError: One fault for each missing column, invalid value, unknown split, duplicate or missing file.
    """
    rows = _read_rows(path)
    faults: list[Fault] = []
    performances: list[Performance] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        found = _check_row(where, row)
        name = row["midi_filename"]
        if name in lines:
            found.append(
                Fault(where, f"midi_filename must be unique (it is also in line {lines[name]})", repr(name))
            )
        elif not found and folder is not None and not (folder / name).is_file():
            found.append(Fault(where, "its MIDI file must exist", str(folder / name)))
        lines.setdefault(name, line)
        faults += found
        if not found:
            performances.append(_parse_performance(row))
    raise_faults(faults)
    if not performances:
        raise UserError(Fault(str(path), "must hold at least one performance", "none"))
    return performances


def write_table(path: Path, performances: Iterable[Performance]) -> None:
    """Writes a table sorted by `midi_filename`, byte-stable; with a column `notes` if all rows have it."""
    rows = sorted(performances, key=lambda row: row.midi_filename)
    counted = bool(rows) and all(row.notes is not None for row in rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, NOTES] if counted else COLUMNS)
    for row in rows:
        cells = [row.composer, row.title, row.split, row.year, row.midi_filename, row.audio_filename]
        cells += [repr(float(row.duration)), row.sha256]
        writer.writerow([*cells, str(row.notes)] if counted else cells)
    write_atomic(path, text.getvalue())


def raise_faults(faults: Sequence[Fault]) -> None:
    """Raises the faults, if any: at most `MAX_FAULTS`, and the number of further ones.

    Raises:
        UserError: There is a fault.
    """
    if not faults:
        return
    rest = len(faults) - MAX_FAULTS
    more = [Fault("and", f"{rest} more like these")] if rest > 0 else []
    raise UserError(*faults[:MAX_FAULTS], *more)


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Reads line number and cells by column of every non-empty row."""
    check_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(Fault(str(path), f"must have at most {MAX_BYTES:,} bytes", "more"))
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(Fault(str(path), "must be a readable CSV", error.strerror or str(error))) from None
    except UnicodeDecodeError as error:
        raise UserError(Fault(str(path), "must be UTF-8", str(error), "save it again as UTF-8")) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        lines = [(reader.line_num, cells) for cells in reader if any(cells)]
    except csv.Error as error:
        where = f"{path}, line {reader.line_num}"
        raise UserError(Fault(where, "must be a row of CSV", str(error))) from None
    header = [column_name(cell) for cell in header]
    got = ", ".join(header) or "an empty file"
    faults = [*_find_mistyped(path, header)]
    faults += [
        Fault(str(path), f"must have a column '{name}'", got) for name in REQUIRED if name not in header
    ]
    faults += [
        Fault(str(path), "must not have a column twice", name) for name in COLUMNS if header.count(name) > 1
    ]
    rule, width = f"must have {len(header)} cells as the header has", len(header)
    faults += [Fault(f"{path}, line {line}", rule, str(len(row))) for line, row in lines if len(row) != width]
    raise_faults(faults)
    return [(line, dict(zip(header, cells, strict=True))) for line, cells in lines]


def column_name(cell: str) -> str:
    """Normalizes the case, spaces and invisible characters of a known column's name."""
    visible = "".join(each for each in cell if unicodedata.category(each) != "Cf").strip()
    return visible.casefold() if visible.casefold() in (*COLUMNS, NOTES) else visible


def _find_mistyped(path: Path, header: Sequence[str]) -> list[Fault]:
    """Returns faults of columns whose names are close to those of missing columns."""
    absent = [name for name in (*COLUMNS, NOTES) if name not in header]
    faults = []
    for name in header:
        if name in (*COLUMNS, NOTES):
            continue
        if near := difflib.get_close_matches(name.casefold(), absent, n=1, cutoff=NEAR):
            remedy = f"rename it to '{near[0]}', or to something else"
            faults.append(Fault(str(path), "must not have a column that is nearly one of ours", name, remedy))
    return faults


def _check_row(where: str, row: dict[str, str]) -> list[Fault]:
    checks: list[tuple[str, Callable[[str], bool], str]] = [
        ("canonical_composer", _is_text, "must be text, not empty, without control characters"),
        ("canonical_title", _is_text, "must be text, not empty, without control characters"),
        ("split", lambda cell: cell in ("", *SPLITS), f"must be one of {', '.join(SPLITS)}, or empty"),
        ("year", _is_year, "must be a year of four digits, or empty"),
        (
            "midi_filename",
            is_midi_name,
            "must be a path with / to a MIDI file (.mid, .midi) below the folder",
        ),
        ("audio_filename", _is_clean, "must be without control characters"),
        ("duration", _is_seconds, f"must be seconds, 0 to {MAX_DURATION:,.0f}"),
        ("sha256", _is_digest, "must be 64 hexadecimal digits, or empty"),
        ("notes", _is_count, "must be a whole number"),
    ]
    return [
        Fault(f"{where}, {column}", rule, repr(row[column]))
        for column, holds, rule in checks
        if column in row and not holds(row[column])
    ]


def _parse_performance(row: dict[str, str]) -> Performance:
    return Performance(
        composer=plain_text(row["canonical_composer"]),
        title=plain_text(row["canonical_title"]),
        split=row.get("split", ""),
        year=row.get("year", ""),
        midi_filename=row["midi_filename"],
        duration=float(row["duration"]),
        sha256=row.get("sha256", ""),
        notes=int(row["notes"]) if row.get("notes") else None,
        audio_filename=row.get("audio_filename", ""),
    )


def plain_text(text: str) -> str:
    """Normalizes a composer or title to NFC with plain spaces.

    Otherwise two spellings of one name would be two composers, and one composition could be in two splits.
    """
    composed = unicodedata.normalize("NFC", text)
    return "".join(" " if unicodedata.category(each) == "Zs" else each for each in composed)


def _is_clean(cell: str) -> bool:
    """Whether text can be shown unescaped in a terminal, a log or a page."""
    return not any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in cell)


def _is_text(cell: str) -> bool:
    return bool(cell.strip()) and _is_clean(cell)


def _is_year(cell: str) -> bool:
    return re.fullmatch(r"([0-9]{4})?", cell) is not None


def _is_seconds(cell: str) -> bool:
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?", cell) is None:
        return False
    return float(cell) <= MAX_DURATION


def _is_digest(cell: str) -> bool:
    return re.fullmatch(r"([0-9a-f]{64})?", cell) is not None


def _is_count(cell: str) -> bool:
    return re.fullmatch(r"[0-9]{0,12}", cell) is not None


def is_midi_name(cell: str) -> bool:
    """Whether a path to a MIDI file is relative, posix, printable, and stays inside its folder."""
    path = PurePosixPath(cell)
    return (
        path.suffix.lower() in MIDI_SUFFIXES
        and not path.is_absolute()
        and not re.match(r"[A-Za-z]:", cell)
        and "\\" not in cell
        and _is_clean(cell)
        and not any(unicodedata.bidirectional(each) in DIRECTION_CHANGES for each in cell)
        and not any(part in ("", ".", "..") for part in cell.split("/"))
    )
