"""One track of a MIDI file as events, and events as a track.

An event is a tick and its bytes, status first: running status is written out, so that an event means the same
wherever it is put.

Format: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1988).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from coma_gen.music.notes import Notes, Seconds
from coma_gen.music.sustain import SUSTAIN, Ticks

Event = tuple[int, bytes]
NOTE_OFF, NOTE_ON, CONTROL, PROGRAM, META = 0x80, 0x90, 0xB0, 0xC0, 0xFF
END_OF_TRACK, TRACK_NAME, TEMPO, TIME_SIGNATURE, KEY_SIGNATURE = 0x2F, 0x03, 0x51, 0x58, 0x59
_SYSEX = (0xF0, 0xF7)
_ONE_BYTE = (0xC0, 0xD0)
"""Program changes and channel pressure carry one byte of data, other channel messages two."""


def track_chunks(content: bytes) -> Iterator[bytes]:
    """The bytes of each track of a MIDI file."""
    at = 8 + int.from_bytes(content[4:8], "big")
    while at + 8 <= len(content):
        kind, length = struct.unpack_from(">4sI", content, at)
        if kind == b"MTrk":
            yield content[at + 8 : at + 8 + length]
        at += 8 + length


def track_events(track: bytes) -> Iterator[Event]:
    """The events of a track in their order, up to its end or to where it is damaged."""
    at, tick, running, size = 0, 0, 0, len(track)
    try:
        while at < size:
            delta, at = _number(track, at)
            tick += delta
            status = track[at]
            if status == META or status in _SYSEX:
                if status == META and track[at + 1] == END_OF_TRACK:
                    return
                length, start = _number(track, at + (2 if status == META else 1))
                event, at = track[at : start + length], start + length
            else:
                if status >= NOTE_OFF:
                    running, at = status, at + 1
                end = at + (1 if running & 0xF0 in _ONE_BYTE else 2)
                event, at = bytes((running,)) + track[at:end], end
            if at > size or event[0] < NOTE_OFF:
                return
            yield tick, event
    except IndexError:
        return


def track_chunk(events: Iterable[Event]) -> bytes:
    """A track of events that are in the order of time, with its end."""
    body, last = bytearray(), 0
    for tick, event in events:
        body += variable_length(tick - last)
        body += event
        last = tick
    body += b"\x00\xff\x2f\x00"
    return struct.pack(">4sI", b"MTrk", len(body)) + bytes(body)


def note_events(notes: Notes, to_ticks: Callable[[Seconds], Ticks], *, channel: int = 0) -> list[Event]:
    """Notes and pedal as events of a channel, in the order of time; no note is shorter than a tick, and a
    pedal that would be is left out.

    At one tick notes end, the pedal rises, it falls, and notes begin, in that order.
    """
    start = to_ticks(notes.onset)
    end = np.maximum(to_ticks(notes.onset + notes.duration), start + 1)
    down, up = to_ticks(notes.pedal).T
    down, up = down[up > down], up[up > down]
    groups = (
        (end, NOTE_OFF, notes.pitch, 0),
        (up, CONTROL, SUSTAIN, 0),
        (down, CONTROL, SUSTAIN, 127),
        (start, NOTE_ON, notes.pitch, notes.velocity),
    )
    columns = [np.broadcast_arrays(*(np.asarray(part, np.int64) for part in group)) for group in groups]
    rows = np.concatenate([np.stack(group, axis=1) for group in columns])
    rank = np.repeat(np.arange(len(groups)), [len(group[0]) for group in columns])
    ordered = rows[np.lexsort((rank, rows[:, 0]))].tolist()
    return [(tick, bytes((status | channel, first, second))) for tick, status, first, second in ordered]


def meta_event(kind: int, data: bytes) -> bytes:
    """A meta event, such as a tempo or a track's name."""
    return bytes((META, kind)) + variable_length(len(data)) + data


def variable_length(value: int) -> bytes:
    """A MIDI variable-length quantity: 7 bits a byte, the highest first, all but the last with bit 7 set."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length quantity and the position behind it."""
    value = 0
    while True:
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
