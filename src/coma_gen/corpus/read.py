"""Reading the corpus's MIDI files: isolated while nobody has vouched for them, by their digest ever after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.core.sandbox import WorkerFailure, map_isolated
from coma_gen.corpus.table import Performance
from coma_gen.midi.io import notes_of, read_bytes, read_notes, read_song
from coma_gen.midi.notes import Notes
from coma_gen.midi.song import without_notes

MEMORY = 2**30
"""Bytes that reading one file may take."""

SECONDS = 60.0
"""How long it may take."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a first reading of one file gave.

    Attributes:
        notes: how many.
        seconds: how long the music is.
        reason: why the file cannot be used; "" where it can.
        got: what was found instead.
    """

    notes: int = 0
    seconds: float = 0.0
    reason: str = ""
    got: str = ""


def read_all(paths: Sequence[Path]) -> list[Reading]:
    """Reads files for the first time, in processes with bounded memory and time: none takes the run down."""
    rule = f"must be readable within {SECONDS:g} s and {MEMORY // 2**20:,} MiB"
    readings = map_isolated(_read, paths, memory=MEMORY, seconds=SECONDS, desc="read")
    return [
        Reading(reason=rule, got=each.reason) if isinstance(each, WorkerFailure) else each
        for each in readings
    ]


def read_performance(corpus: Path, row: Performance) -> Notes:
    """Reads a performance that the split has accepted, and proves that the file is still the one.

    Args:
        corpus: the folder that `midi_filename` is relative to.
        row: of one of the split's tables.

    Raises:
        UserError: the file is missing, or holds something else than it did.
    """
    path = corpus / row.midi_filename
    content = read_bytes(path, str(path))
    if row.sha256 and sha256_bytes(content) != row.sha256:
        rule = f"must be the file that the split was made from (SHA-256 {row.sha256[:12]}...)"
        raise UserError(Fault(str(path), rule, "other content", "ask `coma-gen doctor`"))
    return read_notes(content, name=str(path))


def _read(path: Path) -> Reading:
    try:
        song = read_song(read_bytes(path, str(path)), name=str(path))
    except UserError as error:
        return Reading(reason=error.faults[0].rule, got=error.faults[0].got)
    notes = notes_of(song)
    if not len(notes):
        return Reading(reason="must have notes", got=without_notes(song))
    return Reading(len(notes), notes.end)
