"""Small files that programs write or the standard allows, each with the notes and the pedal that it means.

At 480 ticks a quarter and 120 bpm 96 ticks are a tenth of a second.
"""

from __future__ import annotations

from dataclasses import dataclass

from midi_builder import Event, note, pedal, smf, track

TENTH = 96
Played = tuple[float, float, int]
"""Onset and duration in seconds, and the pitch."""


@dataclass(frozen=True)
class Situation:
    """A file and what it means."""

    content: bytes
    notes: tuple[Played, ...]
    pedal: tuple[tuple[float, float], ...] = ()
    drums: int = 0


def struck(tick: int, key: int = 60, channel: int = 0) -> Event:
    return tick, bytes((0x90 | channel, key, 70))


def released(tick: int, key: int = 60, channel: int = 0) -> Event:
    return tick, bytes((0x80 | channel, key, 0))


def control(tick: int, number: int, value: int, channel: int = 0) -> Event:
    return tick, bytes((0xB0 | channel, number, value))


def program(tick: int, channel: int) -> Event:
    return tick, bytes((0xC0 | channel, 0))


def later(*tenths: int) -> list[Event]:
    """Notes of a tenth of a second."""
    return [event for start in tenths for event in note(start * TENTH, (start + 1) * TENTH)]


def with_longer_header(content: bytes, more: bytes) -> bytes:
    return content[:4] + (6 + len(more)).to_bytes(4, "big") + content[8:14] + more + content[14:]


MELODY = [pedal(0, 127, 9), pedal(480, 0, 9), *note(0, 96, channel=9)]
KIT = [struck(0, 36, 10), released(TENTH, 36, 10)]
SITUATIONS = {
    "an overdub without a release of its own": Situation(
        smf(track(struck(0), struck(48), released(96), *later(5, 10, 15))),
        ((0, 0.1, 60), (0.05, 0.05, 60), (0.5, 0.1, 60), (1.0, 0.1, 60), (1.5, 0.1, 60)),
    ),
    "two of one key, first in, first out": Situation(
        smf(track(struck(0), struck(96), released(192), released(288))), ((0, 0.2, 60), (0.1, 0.2, 60))
    ),
    "a release before its note, at one tick": Situation(
        smf(track(released(96), struck(96), released(480), struck(480), *later(10, 15))),
        ((0.1, 0, 60), (0.5, 0, 60), (1.0, 0.1, 60), (1.5, 0.1, 60)),
    ),
    "a release in another track": Situation(
        smf(track(struck(0)), track(released(480))), ((0, 0.5, 60),)
    ),
    "all notes off": Situation(
        smf(track(struck(0), struck(0, 64), control(480, 123, 0), *later(10))),
        ((0, 0.5, 60), (0, 0.5, 64), (1.0, 0.1, 60)),
    ),
    "all sound off": Situation(
        smf(track(struck(0), control(480, 120, 0), *later(10))), ((0, 0.5, 60), (1.0, 0.1, 60))
    ),
    "a reset that lifts the pedal": Situation(
        smf(track(pedal(0, 127), control(480, 121, 0), *later(5, 10))),
        ((0.5, 0.1, 60), (1.0, 0.1, 60)),
        pedal=((0, 0.5),),
    ),
    "a packet that looks like a track's end": Situation(
        smf(track(*later(0), (200, b"\xf7\x04\x00\xff\x2f\x00"), *later(5))), ((0, 0.1, 60), (0.5, 0.1, 60))
    ),
    "no status behind a system exclusive": Situation(
        smf(track(struck(0), (48, b"\xf0\x02\x01\xf7"), (96, b"\x3c\x00"))), ((0, 0.1, 60),)
    ),
    "a longer header": Situation(with_longer_header(smf(track(*later(0))), b"more"), ((0, 0.1, 60),)),
    "drums by an XG bank": Situation(
        smf(track(*later(0)), track(control(0, 0, 127, 10), program(0, 10), *KIT)), ((0, 0.1, 60),), drums=1
    ),
    "drums by a GM2 bank": Situation(
        smf(track(*later(0)), track(control(0, 0, 120, 10), program(0, 10), *KIT)), ((0, 0.1, 60),), drums=1
    ),
    "drums by a GS part": Situation(
        smf(track(*later(0)), track((0, b"\xf0\x0a\x41\x10\x42\x12\x40\x1a\x15\x01\x10\xf7"), *KIT)),
        ((0, 0.1, 60),),
        drums=1,
    ),
    "a bank of GS, where 127 is no rhythm": Situation(
        smf(
            track((0, b"\xf0\x0a\x41\x10\x42\x12\x40\x00\x7f\x00\x41\xf7")),
            track(control(0, 0, 127, 10), program(0, 10), *KIT),
        ),
        ((0, 0.1, 36),),
    ),
    "a melody on channel 10 by a GM2 bank": Situation(
        smf(track(control(0, 0, 121, 9), program(0, 9), *MELODY)),
        ((0, 0.1, 60),),
        pedal=((0, 0.5),),
    ),
    "two ports": Situation(
        smf(track(struck(0), released(288)), track((0, b"\xff\x21\x01\x01"), struck(96), released(192))),
        ((0, 0.3, 60), (0.1, 0.1, 60)),
    ),
}  # fmt: skip
