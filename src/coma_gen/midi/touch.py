"""The same notes, played with another touch: a file whose velocities and lengths are replaced, and nothing
else.
"""

from __future__ import annotations

import struct

import numpy as np

from coma_gen.midi.note_pairing import ALL_OFF
from coma_gen.midi.notes import Midi, Seconds
from coma_gen.midi.pedal_events import Ticks
from coma_gen.midi.smf_writer import CONTROL, NOTE_OFF, NOTE_ON, track_chunk
from coma_gen.midi.song import Song


def with_touch(song: Song, velocity: Midi, duration: Seconds) -> bytes:
    """A MIDI file as it was read, its notes as hard and as long as told.

    Drums, pedals, tempi, texts and all else stay event by event; notes without an end are left out. A note
    ends at the latest where its key is struck again, and lasts a tick at least.

    Args:
        song: the file.
        velocity: (N,) 1 to 127, of the notes of `song.played`, in their order.
        duration: (N,) seconds.
    """
    stream, clock = song.stream, song.clock
    on, _ = song.played
    start = stream.tick[on]
    end = clock.nearest_tick(clock.seconds(start) + duration)
    end = np.maximum(start + 1, np.minimum(end, _next_strikes(song, on)))
    is_note = ((stream.kind == NOTE_ON) | (stream.kind == NOTE_OFF)) & ~song.of_drums
    is_release = (stream.kind == CONTROL) & np.isin(stream.first, ALL_OFF) & ~song.of_drums
    tracks: list[list[tuple[int, int, bytes]]] = [[] for _ in range(stream.tracks)]
    rows = stream.rows
    for index in np.flatnonzero(~is_note & ~is_release).tolist():
        tracks[rows[index].track].append((rows[index].tick, 1, rows[index].event))
    for index, hard, until in zip(on.tolist(), velocity.tolist(), end.tolist(), strict=True):
        row = rows[index]
        tracks[row.track].append((row.tick, 1, bytes((NOTE_ON | row.channel, row.event[1], hard))))
        tracks[row.track].append((until, 0, bytes((NOTE_OFF | row.channel, row.event[1], 0))))
    header = struct.pack(">4sIHHH", b"MThd", 6, stream.form, stream.tracks, clock.resolution)
    return header + b"".join(map(_chunk, tracks))


def _chunk(track: list[tuple[int, int, bytes]]) -> bytes:
    """A track whose events are in the order of time, releases first."""
    ordered = sorted(track, key=lambda each: each[:2])
    return track_chunk((tick, event) for tick, _, event in ordered)


def _next_strikes(song: Song, on: Ticks) -> Ticks:
    """(N,) the tick at which the same key of the same voice is struck next, later than each note."""
    stream = song.stream
    key = stream.voice[on] * 128 + stream.first[on]
    later = np.full(len(on), np.iinfo(np.int64).max)
    for each in np.unique(key):
        where = np.flatnonzero(key == each)
        ticks = stream.tick[on[where]]
        following = np.append(ticks, later.max(initial=0))
        later[where] = following[np.searchsorted(ticks, ticks, side="right")]
    return later
