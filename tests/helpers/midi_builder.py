"""MIDI files written event by event, for tests of reading."""

from __future__ import annotations

import struct

Event = tuple[int, bytes]
"""Tick and the bytes of the event."""


def variable_length(value: int) -> bytes:
    digits = [value & 127]
    while value := value >> 7:
        digits.append(value & 127 | 128)
    return bytes(reversed(digits))


def track(*events: Event) -> bytes:
    body, last = b"", 0
    for tick, content in sorted(events, key=lambda event: event[0]):
        body += variable_length(tick - last) + content
        last = tick
    body += b"\x00\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body)) + body


def smf(*tracks: bytes, division: int = 480, form: int = 1) -> bytes:
    return b"MThd" + struct.pack(">IHHH", 6, form, len(tracks), division) + b"".join(tracks)


def note(start: int, end: int, pitch: int = 60, velocity: int = 64, channel: int = 0) -> list[Event]:
    return [(start, bytes([0x90 + channel, pitch, velocity])), (end, bytes([0x80 + channel, pitch, 0]))]


def pedal(tick: int, value: int, channel: int = 0) -> Event:
    return tick, bytes([0xB0 + channel, 64, value])


def tempo(tick: int, microseconds: int) -> Event:
    return tick, b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def program(tick: int, number: int, channel: int = 0) -> Event:
    return tick, bytes([0xC0 + channel, number])
