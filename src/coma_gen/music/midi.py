"""The one door between MIDI files and `Notes`: bounded reading, byte-stable writing.

Reading takes bytes, never a path: symusic would start an external program for some names. What a file claims
(bytes, notes, seconds) is bounded before anybody lays it on a grid: a few hundred bytes can claim 65 million
bars. The tempo map is applied here, in whole numbers and float64, because symusic's own seconds are float32.

Writing uses a clock of our own, 120 bpm in 4/4 with 1,920 ticks a quarter: 3,840 ticks/s is a common multiple
of MAESTRO's two resolutions (384 and 480 a quarter at 120 bpm), so MAESTRO comes through to the tick.

Format: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1988).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import symusic

from coma_gen.errors import Fault, UserError
from coma_gen.music.clock import Clock
from coma_gen.music.events import sustain_events
from coma_gen.music.notes import Notes, Seconds
from coma_gen.music.sustain import Ticks, pedal_intervals
from coma_gen.music.track import (
    PROGRAM,
    TEMPO,
    TIME_SIGNATURE,
    TRACK_NAME,
    meta_event,
    note_events,
    track_chunk,
)

CLOCK_BPM = 120
TICKS_PER_QUARTER = 1920
SECONDS_PER_BEAT = 60 / CLOCK_BPM
SECONDS_PER_BAR = 4 * SECONDS_PER_BEAT
TICKS_PER_SECOND = TICKS_PER_QUARTER * CLOCK_BPM // 60

MAX_BYTES = 64 * 2**20
MAX_NOTES = 1_000_000
MAX_SECONDS = 12 * 3600.0
"""A longer file is refused; this also keeps every gap within one MIDI delta time (28 bits) of our clock."""


def read_notes(source: Path | bytes, *, name: str | None = None) -> Notes:
    """Reads a MIDI file of format 0 or 1: all tracks that are not drums, in seconds from the file's start.

    A note that never ends is not a note (symusic leaves it out); a pedal that is never released lasts to the
    end of the piece. The pedals of several channels are joined into one.

    Args:
        source: a path, or the file's content.
        name: what faults call it; the path by default.

    Raises:
        UserError: the file is missing, not MIDI, damaged, in SMPTE time, or claims too much.
    """
    label = name or ("MIDI data" if isinstance(source, bytes) else str(source))
    content = source if isinstance(source, bytes) else read_bytes(source, label)
    _check_header(content, label)
    controls = sustain_events(content, name=label)
    score = _parsed(content, label)
    start, length, pitch, velocity = _note_columns([track for track in score.tracks if not track.is_drum])
    if len(start) > MAX_NOTES:
        raise UserError(Fault(label, f"must have at most {MAX_NOTES:,} notes", f"{len(start):,}"))
    if len(start) and (pitch.min() < 0 or velocity.min() < 1 or velocity.max() > 127):
        raise UserError(Fault(label, "must have pitches of 0 to 127 and velocities of 1 to 127", "others"))
    times = np.concatenate([start, start + length, *(events[:, 0] for events in controls)])
    clock = _clock_of(score, label)
    end = int(times.max(initial=0))
    if min(times.min(initial=0), length.min(initial=0)) < 0 or clock.seconds(end) > MAX_SECONDS:
        raise UserError(Fault(label, f"must last at most {MAX_SECONDS / 3600:g} hours", "a later event"))
    pedal = np.concatenate([np.zeros((0, 2), np.int64), *(pedal_intervals(each, end) for each in controls)])
    lasting = clock.span(start, start + length)
    return Notes.of(clock.seconds(start), lasting, pitch, velocity, clock.seconds(pedal))


def midi_bytes(notes: Notes) -> bytes:
    """Writes a MIDI file: one track "Piano" (program 0) on our clock, the pedal as control changes;
    byte-stable.

    Times are rounded to the tick (0.26 ms) and no note is shorter than one; a pedal that is shorter is left
    out. Notes of one pitch that overlap come back with their ends in the order of their onsets: MIDI cannot
    say more on one channel.

    Raises:
        ValueError: when the music is longer than `MAX_SECONDS`.
    """
    if max(notes.end, notes.pedal.max(initial=0.0)) > MAX_SECONDS:
        raise ValueError(f"music of more than {MAX_SECONDS:g} s cannot be written")
    head = (
        meta_event(TRACK_NAME, b"Piano"),
        meta_event(TEMPO, (60_000_000 // CLOCK_BPM).to_bytes(3, "big")),
        meta_event(TIME_SIGNATURE, b"\x04\x02\x18\x08"),
        bytes((PROGRAM, 0)),
    )
    track = track_chunk([*((0, event) for event in head), *note_events(notes, _to_ticks)])
    return struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS_PER_QUARTER) + track


def read_clock(content: bytes, *, name: str) -> Clock:
    """The tempo map of a file that `read_notes` reads.

    Raises:
        UserError: as `read_notes`.
    """
    return _clock_of(_parsed(content, name), name)


def read_bytes(path: Path, label: str) -> bytes:
    """The file's content, never more than one byte above the bound.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(Fault(label, "must be a readable MIDI file", error.strerror or str(error))) from None


def _check_header(content: bytes, label: str) -> None:
    """Refuses what is not MIDI of format 0 or 1 in ticks a quarter note, before anything parses it."""
    if len(content) > MAX_BYTES:
        raise UserError(Fault(label, f"must have at most {MAX_BYTES // 2**20} MiB", "more"))
    if len(content) < 14 or content[:4] != b"MThd":
        got = f"{content[:4]!r}" if content else "an empty file"
        raise UserError(Fault(label, "must be a MIDI file, which begins with 'MThd'", got))
    length, form, _, division = struct.unpack(">IHHH", content[4:14])
    if length < 6 or form > 1:
        raise UserError(Fault(label, "must be a MIDI file of format 0 or 1", f"format {form}"))
    if division & 0x8000 or division == 0:
        got = "SMPTE time" if division else "no resolution"
        remedy = "save it again with a tempo map"
        raise UserError(Fault(label, "must count time in ticks a quarter note", got, remedy))


def _parsed(content: bytes, label: str) -> Any:
    """Symusic's score of a file."""
    try:
        return symusic.Score.from_midi(content)
    except (RuntimeError, ValueError, IndexError, MemoryError) as error:
        got = str(error).strip() or type(error).__name__
        raise UserError(Fault(label, "must be a whole MIDI file", got)) from None


def _note_columns(tracks: list[Any]) -> tuple[Ticks, Ticks, Ticks, Ticks]:
    """Start, length (ticks), pitch and velocity of all notes, each (N,)."""
    columns = [track.notes.numpy() for track in tracks]
    none = np.zeros(0, np.int64)
    start, length, pitch, velocity = (
        np.concatenate([none, *(column[key].astype(np.int64) for column in columns)])
        for key in ("time", "duration", "pitch", "velocity")
    )
    return start, length, pitch, velocity


def _clock_of(score: Any, label: str) -> Clock:
    tempos = score.tempos.numpy()
    try:
        return Clock.of(tempos["time"], tempos["mspq"], resolution=score.ticks_per_quarter)
    except ValueError:
        raise UserError(Fault(label, "must have tempi above 0, in the order of time", "others")) from None


def _to_ticks(seconds: Seconds) -> Ticks:
    return np.rint(seconds * TICKS_PER_SECOND).astype(np.int64)
