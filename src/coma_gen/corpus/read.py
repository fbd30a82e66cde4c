"""Reads the corpus's MIDI files: isolated the first time, later verified by their digest."""

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
from coma_gen.midi.song import describe_missing_notes

MEMORY = 2**30
"""Maximum memory in bytes to read one file."""

SECONDS = 60.0
"""Maximum time to read one file."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Result of reading one file for the first time.

    Attributes:
        notes: Number of notes.
        seconds: Length of the music.
        reason: Rule that the file violates; "" for a valid file.
        got: What was found instead.
    """

    notes: int = 0
    seconds: float = 0.0
    reason: str = ""
    got: str = ""


def read_all(paths: Sequence[Path]) -> list[Reading]:
    """Reads untrusted files in subprocesses with memory and time limits, so that none can end the run."""
    rule = f"must be readable within {SECONDS:g} s and {MEMORY // 2**20:,} MiB"
    readings = map_isolated(_read, paths, memory=MEMORY, seconds=SECONDS, desc="read")
    return [
        Reading(reason=rule, got=each.reason) if isinstance(each, WorkerFailure) else each
        for each in readings
    ]


def read_performance(corpus: Path, row: Performance) -> Notes:
    """Reads a performance of a split and verifies its digest.

    Args:
        corpus: Folder to which `midi_filename` is relative.
        row: Row of one of the split's tables.

    Raises:
        UserError: The file is missing or was changed.
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
        return Reading(reason="must have notes", got=describe_missing_notes(song))
    return Reading(len(notes), notes.end)
