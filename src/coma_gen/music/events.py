"""Every event of a MIDI file, walked once before anything parses it: bounds, damage, and the sustain pedal.

What a file claims is held against bounds while it is still bytes, so that no few bytes grow into gigabytes.
Two things must be seen here because symusic does not tell of them: it counts ticks in 32 bits, so that an
event after days would come back at the beginning; and it reads as many tracks as the header tells of, so that
a file cut off between two tracks would lose the rest without a word. It also leaves out the controls of a
(channel, program) that has no notes of its own (a pedal on another channel than the notes, a release after a
program change), so the pedal is read here. About 10 ms a performance.

Format: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1988).
"""

from __future__ import annotations

import struct
from array import array
from collections import defaultdict

import numpy as np

from coma_gen.errors import Fault, UserError
from coma_gen.music.sustain import SUSTAIN, Ticks

MAX_EVENTS = 4_000_000
"""Of a whole file; a note is two, and an hour of MAESTRO has about 80,000."""

MAX_TICKS = 2**31 - 1
DRUM_CHANNEL = 9
_CONTROL, _PROGRAM, _PRESSURE = 0xB0, 0xC0, 0xD0
_META, _SYSEX, _SYSEX_MORE, _END_OF_TRACK = 0xFF, 0xF0, 0xF7, 0x2F


class _DamageError(Exception):
    """What is wrong inside a track."""


def sustain_events(content: bytes, *, name: str) -> list[Ticks]:
    """Walks a file; returns its sustain control changes by channel, without drums, the tracks of a channel
    merged as a player merges them.

    Args:
        content: a MIDI file of which only the header is known to be one.
        name: what faults call it.

    Returns:
        for each channel that has any, (E, 2) tick and value in the order of time.

    Raises:
        UserError: fewer or more tracks than the header tells of, a damaged track, more events or ticks than
            the bounds.
    """
    pedals: dict[int, array[int]] = defaultdict(lambda: array("q"))
    tracks, left = 0, MAX_EVENTS
    position = 8 + int.from_bytes(content[4:8], "big")
    try:
        while position + 8 <= len(content):
            kind, length = struct.unpack_from(">4sI", content, position)
            position += 8 + length
            if kind == b"MTrk":  # whatever else there is, readers pass over
                tracks += 1
                if position > len(content):
                    raise _DamageError(f"a file that ends {position - len(content):,} bytes early")
                left = _walk(content[position - length : position], pedals, left)
    except _DamageError as damage:
        raise UserError(Fault(name, "must be a whole MIDI file", f"{damage} (track {tracks})")) from None
    if tracks != (told := int.from_bytes(content[10:12], "big")):
        got = f"{tracks} tracks where its header tells of {told}"
        raise UserError(Fault(name, "must be a whole MIDI file", got))
    merged = (np.frombuffer(pedals[channel], np.int64).reshape(-1, 2) for channel in sorted(pedals))
    return [events[np.argsort(events[:, 0], kind="stable")] for events in merged]


def _walk(track: bytes, pedals: dict[int, array[int]], left: int) -> int:
    """Adds one track's sustain events to those of its channel; returns how many events more may follow."""
    at, tick, running, size = 0, 0, 0, len(track)
    try:
        while at < size:
            if not left:
                raise _DamageError(f"more than {MAX_EVENTS:,} events")
            left -= 1
            delta, at = _variable_length(track, at)
            tick += delta
            status = track[at]
            if status >= 0x80:
                at += 1
                if status < 0xF0:
                    running = status
            if status >= 0xF0:
                if status not in (_META, _SYSEX, _SYSEX_MORE):
                    raise _DamageError(f"the status {status:02X}, which no file may hold")
                if status == _META:
                    if track[at] == _END_OF_TRACK:
                        break
                    at += 1
                length, at = _variable_length(track, at)
                at += length
                continue
            kind = running & 0xF0
            if kind == _CONTROL and track[at] == SUSTAIN and running & 0x0F != DRUM_CHANNEL:
                pedals[running & 0x0F].extend((tick, track[at + 1]))
            at += 1 if kind in (_PROGRAM, _PRESSURE) else 2
    except IndexError:
        at = size + 1
    if at > size:
        raise _DamageError("an event that is cut off")
    if tick > MAX_TICKS:
        raise _DamageError(f"an event at tick {tick:,}, beyond {MAX_TICKS:,}")
    return left


def _variable_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length quantity (7 bits a byte, the highest first, at most four) and the place behind it."""
    value = 0
    for place in range(at, at + 4):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    raise _DamageError("a number of more than four bytes")
