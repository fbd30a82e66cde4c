"""The same notes, played with another touch: a file whose velocities, lengths and small delays are replaced,
and nothing else.
"""

from __future__ import annotations

import struct

import numpy as np

from coma_gen.midi.note_pairing import ALL_OFF
from coma_gen.midi.notes import Midi, Seconds
from coma_gen.midi.pedal_events import Ticks
from coma_gen.midi.smf_writer import CONTROL, NOTE_OFF, NOTE_ON, PROGRAM, track_chunk
from coma_gen.midi.song import Song


def with_touch(song: Song, velocity: Midi, duration: Seconds, delay: Seconds) -> bytes:
    """A MIDI file as it was read, its notes as hard, as long and as late as told.

    Drums, pedals, tempi, texts and all else stay event by event; notes without an end are left out. A note
    ends at the latest where its key is struck again, and lasts a tick at least.

    Args:
        song: the file.
        velocity: (N,) 1 to 127, of the notes of `song.played`, in their order.
        duration: (N,) seconds.
        delay: (N,) seconds by which each note moves; none moves before the change of its instrument.
    """
    stream, clock = song.stream, song.clock
    on, _ = song.played
    start = _starts(song, delay)
    end = clock.nearest_tick(clock.seconds(start) + duration)
    end = np.maximum(start + 1, np.minimum(end, _next_strikes(song, start)))
    is_note = ((stream.kind == NOTE_ON) | (stream.kind == NOTE_OFF)) & ~song.of_drums
    is_release = (stream.kind == CONTROL) & np.isin(stream.first, ALL_OFF) & ~song.of_drums
    tracks: list[list[tuple[int, int, bytes]]] = [[] for _ in range(stream.tracks)]
    rows = stream.rows
    for index in np.flatnonzero(~is_note & ~is_release).tolist():
        tracks[rows[index].track].append((rows[index].tick, 1, rows[index].event))
    columns = (each.tolist() for each in (on, velocity, start, end))
    for index, hard, since, until in zip(*columns, strict=True):
        row = rows[index]
        tracks[row.track].append((since, 1, bytes((NOTE_ON | row.channel, row.event[1], hard))))
        tracks[row.track].append((until, 0, bytes((NOTE_OFF | row.channel, row.event[1], 0))))
    header = struct.pack(">4sIHHH", b"MThd", 6, stream.form, stream.tracks, clock.resolution)
    return header + b"".join(map(_chunk, tracks))


def _chunk(track: list[tuple[int, int, bytes]]) -> bytes:
    """A track whose events are in the order of time, releases first."""
    ordered = sorted(track, key=lambda each: each[:2])
    return track_chunk((tick, event) for tick, _, event in ordered)


def _starts(song: Song, delay: Seconds) -> Ticks:
    """(N,) the ticks at which notes begin that are played later or earlier than they are written."""
    stream, clock = song.stream, song.clock
    on, _ = song.played
    written = stream.tick[on]
    start = clock.nearest_tick(np.maximum(0.0, clock.seconds(written) + delay))
    for voice in np.unique(stream.voice[on]):
        where = stream.voice[on] == voice
        changes = np.sort(stream.tick[(stream.kind == PROGRAM) & (stream.voice == voice)])
        latest = np.append(0, changes)[np.searchsorted(changes, written[where], side="right")]
        start[where] = np.maximum(start[where], latest)
    return np.where(delay == 0, written, start)


def _next_strikes(song: Song, start: Ticks) -> Ticks:
    """(N,) the tick at which the same key of the same voice is struck next, later than each note."""
    stream = song.stream
    on, _ = song.played
    key = stream.voice[on] * 128 + stream.first[on]
    later = np.full(len(on), np.iinfo(np.int64).max)
    for each in np.unique(key):
        where = np.flatnonzero(key == each)
        ticks = np.sort(start[where])
        following = np.append(ticks, later.max(initial=0))
        later[where] = following[np.searchsorted(ticks, start[where], side="right")]
    return later
