"""Every sustain-pedal event of a MIDI file.

symusic leaves out the controls of a (channel, program) that has no notes of its own: a pedal on another
channel than the notes, or a release after a program change. So the pedal is read here, event by event: about
7 ms a performance.
"""

from __future__ import annotations

import struct
from collections import defaultdict

import numpy as np
import numpy.typing as npt

SUSTAIN = 64
"""The controller number of the sustain pedal."""

DOWN_FROM = 64
"""The least value of it that means down."""

DRUM_CHANNEL = 9
Ticks = npt.NDArray[np.int64]
_CONTROL, _PROGRAM, _PRESSURE = 0xB0, 0xC0, 0xD0
_META, _SYSEX, _SYSEX_MORE, _END_OF_TRACK = 0xFF, 0xF0, 0xF7, 0x2F


def sustain_events(content: bytes) -> list[Ticks]:
    """Sustain control changes by channel, drums left out, the tracks of a channel merged as a player merges
    them.

    Args:
        content: a MIDI file that a parser has already accepted.

    Returns:
        for each channel that has any, (E, 2) tick and value in the order of time.
    """
    by_channel: dict[int, list[tuple[int, int]]] = defaultdict(list)
    position = 8 + int.from_bytes(content[4:8], "big")
    while position + 8 <= len(content):
        name, length = struct.unpack_from(">4sI", content, position)
        if name == b"MTrk":
            _walk(content[position + 8 : position + 8 + length], by_channel)
        position += 8 + length
    found = [events for channel, events in sorted(by_channel.items()) if channel != DRUM_CHANNEL]
    return [np.array(sorted(events, key=lambda event: event[0]), np.int64) for events in found]


def pedal_intervals(events: Ticks, end: int) -> Ticks:
    """The ticks at which one channel's pedal goes down and up.

    Args:
        events: (E, 2) tick and value, in the order of time.
        end: the last tick of the piece; a pedal that is still down rises there.

    Returns:
        (P, 2), sorted; without those of no length.
    """
    is_down = np.concatenate([[False], events[:, 1] >= DOWN_FROM])
    times = events[np.flatnonzero(is_down[1:] != is_down[:-1]), 0]
    if len(times) % 2:
        times = np.append(times, end)
    pairs: Ticks = times.reshape(-1, 2)
    down, up = pairs.T
    kept: Ticks = pairs[up > down]
    return kept


def _walk(track: bytes, by_channel: dict[int, list[tuple[int, int]]]) -> None:
    """Adds one track's sustain events; stops at the end of the track or where it is damaged."""
    at, tick, running, size = 0, 0, 0, len(track)
    try:
        while at < size:
            delta, at = _variable_length(track, at)
            tick += delta
            status = track[at]
            if status >= 0xF0:
                at += 1
                if status not in (_META, _SYSEX, _SYSEX_MORE):
                    return
                if status == _META:
                    if track[at] == _END_OF_TRACK:
                        return
                    at += 1
                length, at = _variable_length(track, at)
                at += length
                continue
            if status >= 0x80:
                running = status
                at += 1
            kind = running & 0xF0
            if kind == _CONTROL and track[at] == SUSTAIN:
                by_channel[running & 0x0F].append((tick, track[at + 1]))
            at += 1 if kind in (_PROGRAM, _PRESSURE) else 2
    except IndexError:
        return


def _variable_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length quantity (7 bits a byte, the highest first) and the position behind it."""
    value = 0
    while True:
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
