"""Valid MIDI files of any kind that programs write, each with the notes that it means: from a seed."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from midi_builder import Event, variable_length

Key = tuple[int, int, int]
"""Port, channel, key."""
Meant = tuple[Key, int, int, int]
"""A note: its key, velocity, and the ticks at which it begins and ends."""


@dataclass
class Written:
    """A file and what it means.

    Attributes:
        content: the file.
        notes: what it means, drums too, sorted.
        drums: voices (port, channel) that are of drums.
        pedal: by voice, the ticks at which the pedal goes down and up, in the order of time.
        endless: how many notes have no end.
        is_plain: whether every note has its release behind it, so that a plain pairing reads it right.
    """

    content: bytes = b""
    notes: list[Meant] = field(default_factory=list)
    drums: set[tuple[int, int]] = field(default_factory=set)
    pedal: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    endless: int = 0
    is_plain: bool = True


def written(seed: int) -> Written:
    """The file of that seed."""
    dice = random.Random(seed)
    song = Written(is_plain=dice.random() < 0.7)
    form = int(dice.random() < 0.7)
    ports = dice.choice(((0,), (0,), (0, 3))) if form else (0,)
    tracks: list[tuple[int, list[Event]]] = []
    for port in ports:
        parts: list[list[Event]] = [[] for _ in range(dice.randint(1, 3) if form else 1)]
        for channel in dice.sample(range(16), dice.randint(1, 3)):
            for event in _played(dice, song, port, channel):
                dice.choice(parts).append(event)
        parts[0] += _passing(dice)
        tracks += [(port, part) for part in parts]
    chunks = [_chunk(dice, port, events) for port, events in tracks]
    if not song.is_plain:
        chunks.insert(dice.randint(0, len(chunks)), b"XFIH" + struct.pack(">I", 5) + b"other")
    header = struct.pack(">HHH", form, len(tracks), dice.choice((24, 96, 384, 480, 960)))
    header += bytes(dice.choice((0, 0, 2, 4)))
    song.content = b"MThd" + struct.pack(">I", len(header)) + header + b"".join(chunks)
    song.notes.sort()
    return song


def _played(dice: random.Random, song: Written, port: int, channel: int) -> list[Event]:
    """What one channel plays, in the order in which it was written."""
    events: list[Event] = _set_up(dice, song, port, channel)
    silence = dice.choice((None, None, 2 * dice.randint(50, 1500) + 1))
    if silence:
        number = dice.choice((120, 123, 123, 126))
        events.append((silence, bytes((0xB0 | channel, number, 0))))
    for key in dice.sample(range(30, 100), dice.randint(1, 4)):
        kind = "plain" if song.is_plain else dice.choice(("plain", "missing", "early", "stray", "endless"))
        events += _one_key(dice, song, (port, channel, key), kind, silence)
    if dice.random() < 0.6:
        events += _pedal(dice, song, port, channel)
    return events


def _set_up(dice: random.Random, song: Written, port: int, channel: int) -> list[Event]:
    """Bank and program, which say whether it is of drums."""
    bank = dice.choice((None, None, None, 0, 1, 120, 121, 126, 127))
    is_drum = channel == 9
    events: list[Event] = []
    if bank is not None:
        events.append((0, bytes((0xB0 | channel, 0, bank))))
        if dice.random() < 0.8:
            events.append((0, bytes((0xC0 | channel, dice.randrange(128)))))
            is_drum = bank in (120, 126, 127) or (is_drum and bank != 121)
    if is_drum:
        song.drums.add((port, channel))
    # as one event, so that no track gets a part of it; notes begin at tick 2
    return [(0, b"\x00".join(content for _, content in events))] if events else []


def _one_key(dice: random.Random, song: Written, key: Key, kind: str, silence: int | None) -> list[Event]:
    """What happens to one key, in the order of time; at even ticks, so that silence falls between."""
    port, channel, number = key
    events: list[Event] = []
    tick = 2

    def on(at: int) -> int:
        velocity = dice.randint(1, 127)
        events.append((at, bytes((0x90 | channel, number, velocity))))
        return velocity

    def off(at: int) -> None:
        written = dice.choice((bytes((0x90 | channel, number, 0)), bytes((0x80 | channel, number, 64))))
        events.append((at, written))

    for _ in range(dice.randint(1, 6)):
        tick += 2 * dice.randint(0 if kind == "plain" else 1, 150)
        number_of = dice.choice((1, 1, 1, 2, 3)) if kind == "plain" else 1
        length = 2 * dice.randint(1, 100)
        last = tick + length * (2 * number_of - 1)
        if silence and last >= silence > tick:
            song.notes.append((key, on(tick), tick, silence))  # the channel is silenced, and no release comes
            tick = silence + 1
        elif kind == "missing" and dice.random() < 0.5:
            second = tick + 2 * dice.randint(0, length // 2 - 1)
            song.notes += [(key, on(tick), tick, tick + length), (key, on(second), second, tick + length)]
            off(tick + length)
            tick += length
        elif kind == "early" and dice.random() < 0.5:
            off(tick)
            song.notes.append((key, on(tick), tick, tick))
        else:
            starts = [tick + length * index for index in range(number_of)]
            song.notes += [(key, on(start), start, start + length * number_of) for start in starts]
            for start in starts:
                off(start + length * number_of)
            tick = last
            if kind == "stray" and dice.random() < 0.5:
                tick += 2
                off(tick)
    if kind == "endless" and not (silence and silence > tick):
        on(tick + 2)
        song.endless += (port, channel) not in song.drums
    return events


def _pedal(dice: random.Random, song: Written, port: int, channel: int) -> list[Event]:
    """The pedal, at ticks of its own; a reset of all controllers lifts it."""
    events: list[Event] = []
    moves: list[tuple[int, int]] = []
    down = -1
    for tick in sorted(dice.sample(range(1, 3000), dice.randint(1, 8))):
        is_reset = dice.random() < 0.2
        value = 0 if is_reset else dice.choice((0, 10, 63, 64, 100, 127))
        events.append((tick, bytes((0xB0 | channel, 121, 0) if is_reset else (0xB0 | channel, 64, value))))
        if value >= 64 and down < 0:
            down = tick
        elif value < 64 <= 64 + down:
            moves.append((down, tick))
            down = -1
    if down >= 0:
        events.append((3001, bytes((0xB0 | channel, 64, 0))))
        moves.append((down, 3001))
    if moves and (port, channel) not in song.drums:
        song.pedal[port, channel] = moves
    return events


def _passing(dice: random.Random) -> list[Event]:
    """What is no note: tempi, texts, system exclusives and packets of them."""
    events: list[Event] = [
        (tick, b"\xff\x51\x03" + dice.randint(100_000, 2_000_000).to_bytes(3, "big"))
        for tick in dice.sample(range(4000), dice.randint(0, 3))
    ]
    others = (
        b"\xff\x01\x03abc",
        b"\xff\x58\x04\x03\x02\x18\x08",
        b"\xff\x7f\x02\x00\x2f",
        b"\xf0\x03\x43\x12\xf7",
        b"\xf0\x02\x43\x12",
        b"\xf7\x02\x11\xf7",
        b"\xf7\x04\x00\xff\x2f\x00",
    )
    return events + [(dice.randrange(4000), dice.choice(others)) for _ in range(dice.randint(0, 5))]


def _chunk(dice: random.Random, port: int, events: list[Event]) -> bytes:
    """A track, with or without running status."""
    body = b"\x00\xff\x21\x01" + bytes((port,)) if port or dice.random() < 0.2 else b""
    last, status = 0, 0
    running = dice.random() < 0.5
    for tick, content in sorted(events, key=lambda event: event[0]):
        body += variable_length(tick - last)
        last = tick
        repeats = running and content[0] == status
        body += content[1:] if repeats else content
        status = content[0] if content[0] < 0xF0 and tick > 0 else 0
    body += b"\x00\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body)) + body
