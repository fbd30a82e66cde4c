"""Events as a track of a MIDI file.

An event is a tick and its bytes, status first: running status is written out, so that an event means the same
wherever it is put.

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
"""The meta event that puts what follows in its track on another port, with 16 channels of its own."""


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
