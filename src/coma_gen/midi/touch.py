"""Replaces the velocities, lengths and delays of a file's notes, and nothing else."""

from __future__ import annotations

import struct

import numpy as np

from coma_gen.midi.note_pairing import ALL_OFF
from coma_gen.midi.notes import Midi, Seconds
from coma_gen.midi.pedal_events import Ticks
from coma_gen.midi.smf_writer import CONTROL, NOTE_OFF, NOTE_ON, PROGRAM, track_chunk
from coma_gen.midi.song import Song


def apply_touch(song: Song, velocity: Midi, duration: Seconds, delay: Seconds) -> bytes:
    """Encodes a file with other velocities, durations and onsets of its notes.

    All other events (drums, pedals, tempi, texts) are preserved; notes without an end are dropped. A note
    ends at the latest where its key is struck again, and lasts at least one tick.

    Args:
        song: The file.
        velocity: (N,) 1 to 127, for the notes of `song.sounding_notes` in order.
        duration: (N,) seconds.
        delay: (N,) seconds by which each onset moves; no note moves before its program change.
    """
    stream, clock = song.stream, song.clock
    on, _ = song.sounding_notes
    start = _shift_onsets(song, delay)
    end = clock.nearest_tick(clock.seconds(start) + duration)
    end = np.maximum(start + 1, np.minimum(end, _find_next_onsets(song, start)))
    is_note = ((stream.kind == NOTE_ON) | (stream.kind == NOTE_OFF)) & ~song.is_drum_event
    is_release = (stream.kind == CONTROL) & np.isin(stream.first, ALL_OFF) & ~song.is_drum_event
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
    return header + b"".join(map(_encode_track, tracks))


def _encode_track(track: list[tuple[int, int, bytes]]) -> bytes:
    """Encodes a track with its events sorted by time, releases first."""
    ordered = sorted(track, key=lambda each: each[:2])
    return track_chunk((tick, event) for tick, _, event in ordered)


def _shift_onsets(song: Song, delay: Seconds) -> Ticks:
    """Returns the onsets (N,) in ticks, moved by `delay`."""
    stream, clock = song.stream, song.clock
    on, _ = song.sounding_notes
    written = stream.tick[on]
    start = clock.nearest_tick(np.maximum(0.0, clock.seconds(written) + delay))
    for voice in np.unique(stream.voice[on]):
        where = stream.voice[on] == voice
        changes = np.sort(stream.tick[(stream.kind == PROGRAM) & (stream.voice == voice)])
        latest = np.append(0, changes)[np.searchsorted(changes, written[where], side="right")]
        start[where] = np.maximum(start[where], latest)
    return np.where(delay == 0, written, start)


def _find_next_onsets(song: Song, start: Ticks) -> Ticks:
    """Returns the tick (N,) of the next later onset of the same key and voice."""
    stream = song.stream
    on, _ = song.sounding_notes
    key = stream.voice[on] * 128 + stream.first[on]
    later = np.full(len(on), np.iinfo(np.int64).max)
    for each in np.unique(key):
        where = np.flatnonzero(key == each)
        ticks = np.sort(start[where])
        following = np.append(ticks, later.max(initial=0))
        later[where] = following[np.searchsorted(ticks, start[where], side="right")]
    return later
