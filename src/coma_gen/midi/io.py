"""Converts MIDI files to `Notes` and back: reading within bounds, byte-stable writing.

The size of a file (bytes, events, ticks, notes, seconds) is checked before the music is put on a grid: a few
hundred bytes can claim 65 million bars. A file is parsed once, by `smf`; notes, pedal, prompt, picture and
sound all use that result.

Written files have a tempo of 120 bpm in 4/4 and 1,920 ticks per quarter: 3,840 ticks/s is a common multiple
of MAESTRO's two resolutions (384 and 480 per quarter at 120 bpm), so MAESTRO is preserved to the tick.

Format: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1988).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.midi.drums import find_drum_events
from coma_gen.midi.instruments import INSTRUMENTS
from coma_gen.midi.note_pairing import pair_notes
from coma_gen.midi.notes import Notes, Seconds
from coma_gen.midi.pedal_events import Ticks
from coma_gen.midi.smf import Stream, read_stream
from coma_gen.midi.smf_writer import (
    PROGRAM,
    TEMPO,
    TIME_SIGNATURE,
    TRACK_NAME,
    meta_event,
    note_events,
    track_chunk,
)
from coma_gen.midi.song import Song
from coma_gen.midi.tempo_map import TempoMap

CLOCK_BPM = 120
TICKS_PER_QUARTER = 1920
SECONDS_PER_BEAT = 60 / CLOCK_BPM
SECONDS_PER_BAR = 4 * SECONDS_PER_BEAT
TICKS_PER_SECOND = TICKS_PER_QUARTER * CLOCK_BPM // 60

MAX_BYTES = 64 * 2**20
MAX_NOTES = 1_000_000
MAX_SECONDS = 12 * 3600.0
"""Longer files are rejected. This also keeps every gap within one MIDI delta time (28 bits) when written."""


def read_notes(source: Path | bytes, *, name: str | None = None) -> Notes:
    """Reads the notes of a MIDI file of format 0 or 1, without drums, in seconds from the file's start.

    `note_pairing` determines where notes end; notes without an end are dropped. A pedal that is never
    released lasts to the end of the piece. The pedals of several channels are merged into one.

    Args:
        source: Path, or content of the file.
        name: Name of the file in errors; the path by default.

    Raises:
        UserError: The file is missing, not MIDI, damaged, in SMPTE time, or exceeds a bound.
    """
    label = name or ("MIDI data" if isinstance(source, bytes) else str(source))
    content = source if isinstance(source, bytes) else read_bytes(source, label)
    return notes_of(read_song(content, name=label))


def read_song(content: bytes, *, name: str) -> Song:
    """Parses a MIDI file.

    Raises:
        UserError: See `read_notes`.
    """
    if len(content) > MAX_BYTES:
        raise UserError(Fault(name, f"must have at most {MAX_BYTES // 2**20} MiB", "more"))
    stream = read_stream(content, name=name)
    song = Song(stream, _build_tempo_map(stream, name), pair_notes(stream), find_drum_events(stream))
    notes = len(song.sounding_notes[0])
    if notes > MAX_NOTES:
        raise UserError(Fault(name, f"must have at most {MAX_NOTES:,} notes", f"{notes:,}"))
    if song.clock.seconds(song.last_tick) > MAX_SECONDS:
        raise UserError(Fault(name, f"must last at most {MAX_SECONDS / 3600:g} hours", "a later event"))
    return song


def notes_of(song: Song) -> Notes:
    """Returns the notes and the pedal of a parsed file; see `read_notes`."""
    stream, clock = song.stream, song.clock
    on, off = song.sounding_notes
    start, end = stream.tick[on], stream.tick[off]
    pedals = song.sustain_intervals(song.last_tick).values()
    pedal = np.concatenate([np.zeros((0, 2), np.int64), *pedals])
    return Notes.of(
        clock.seconds(start),
        clock.span(start, end),
        stream.first[on],
        stream.second[on],
        clock.seconds(pedal),
    )


def midi_bytes(notes: Notes, *, program: int = 0) -> bytes:
    """Encodes notes as a MIDI file with one track, byte-stable; the pedal becomes control changes.

    Times are rounded to ticks (0.26 ms). Notes last at least one tick; shorter presses of the pedal are
    dropped. Overlapping notes of one pitch are read back with their ends in the order of their onsets: MIDI
    cannot express more on one channel.

    Raises:
        ValueError: The music is longer than `MAX_SECONDS`.
    """
    if max(notes.end, notes.pedal.max(initial=0.0)) > MAX_SECONDS:
        raise ValueError(f"music of more than {MAX_SECONDS:g} s cannot be written")
    head = (
        meta_event(TRACK_NAME, INSTRUMENTS[program].encode() if program else b"Piano"),
        meta_event(TEMPO, (60_000_000 // CLOCK_BPM).to_bytes(3, "big")),
        meta_event(TIME_SIGNATURE, b"\x04\x02\x18\x08"),
        bytes((PROGRAM, program)),
    )
    track = track_chunk([*((0, event) for event in head), *note_events(notes, _to_ticks)])
    return struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS_PER_QUARTER) + track


def read_bytes(path: Path, label: str) -> bytes:
    """Reads the content of a file, at most one byte above the bound.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(Fault(label, "must be a readable MIDI file", error.strerror or str(error))) from None


def _build_tempo_map(stream: Stream, label: str) -> TempoMap:
    ticks, tempo = stream.tempi.T
    try:
        return TempoMap.of(ticks, tempo, resolution=stream.resolution)
    except ValueError:
        raise UserError(Fault(label, "must have tempi above 0", "a tempo of 0")) from None


def _to_ticks(seconds: Seconds) -> Ticks:
    return np.rint(seconds * TICKS_PER_SECOND).astype(np.int64)
