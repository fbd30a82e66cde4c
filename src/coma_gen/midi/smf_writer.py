"""Encodes events as a track of a MIDI file.

An event is a tick and its bytes, status first. Running status is not used, so that an event has the same
meaning at any position.

Format: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1988).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

import numpy as np

from coma_gen.midi.notes import Notes, Seconds
from coma_gen.midi.pedal_events import SUSTAIN, Ticks

Event = tuple[int, bytes]
NOTE_OFF, NOTE_ON, CONTROL, PROGRAM, META = 0x80, 0x90, 0xB0, 0xC0, 0xFF
END_OF_TRACK, TRACK_NAME, TEMPO, TIME_SIGNATURE, KEY_SIGNATURE = 0x2F, 0x03, 0x51, 0x58, 0x59
PORT = 0x21
"""The meta event that switches its track to another port, with 16 channels of its own."""


def track_chunk(events: Iterable[Event]) -> bytes:
    """Encodes a track of events sorted by time, with its end."""
    body, last = bytearray(), 0
    for tick, event in events:
        body += variable_length(tick - last)
        body += event
        last = tick
    body += b"\x00\xff\x2f\x00"
    return struct.pack(">4sI", b"MTrk", len(body)) + bytes(body)


def note_events(notes: Notes, to_ticks: Callable[[Seconds], Ticks], *, channel: int = 0) -> list[Event]:
    """Converts notes and pedal to events of one channel, sorted by time.

    Notes last at least one tick; shorter presses of the pedal are dropped. At equal ticks the order is: notes
    end, the pedal is released, the pedal is pressed, notes begin.
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
    """Encodes a meta event, such as a tempo or a track name."""
    return bytes((META, kind)) + variable_length(len(data)) + data


def variable_length(value: int) -> bytes:
    """Encodes a variable-length quantity: 7 bits per byte, big-endian, bit 7 set in all but the last."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))
