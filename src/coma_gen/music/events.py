"""Every event of a MIDI file, walked once: the one reading that notes, pedal, prompt and sound share.

What a file claims is held against bounds while it is still bytes, so that no few bytes grow into gigabytes.
The tracks of a file are one stream, in the order of time and within a tick in that of the tracks, as a player
merges them: a key that one track strikes may be released by another.

Where the standard leaves a choice: chunks of other kinds, the rest of a longer header and what follows a
track's end are passed over; an F7 packet is passed over by its length, whatever it holds; a message without a
status goes on with the last one of the track, also behind a system exclusive or meta event, which should
have ended it.

Format: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1988).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coma_gen.errors import Fault, UserError
from coma_gen.music.sustain import Ticks
from coma_gen.music.track import META, PORT, TEMPO

MAX_EVENTS = 4_000_000
"""Of a whole file; a note is two, and an hour of MAESTRO has about 80,000."""

MAX_TICKS = 2**31 - 1
_SYSEX, _SYSEX_MORE, _END_OF_TRACK = 0xF0, 0xF7, 0x2F
_DATA = tuple(1 if status & 0xE0 == 0xC0 else 2 for status in range(0xF0))
"""Bytes of data by status: program changes and channel pressure carry one, other channel messages two."""
_RULE = "must be a whole MIDI file"


class Row(NamedTuple):
    """One event.

    Attributes:
        tick: from the start of the file.
        track: from 0.
        port: that its track is played through.
        event: its bytes, status first, whether or not the file repeats the status.
    """

    tick: int
    track: int
    port: int
    event: bytes

    @property
    def kind(self) -> int:
        """The kind of a channel message, 0xF0 for anything else."""
        return self.event[0] & 0xF0

    @property
    def channel(self) -> int:
        """The channel of a channel message; -1 for anything else."""
        return self.event[0] & 0x0F if self.event[0] < 0xF0 else -1

    @property
    def voice(self) -> int:
        """16 times the port and the channel of a channel message; -1 for anything else."""
        return 16 * self.port + self.channel if self.event[0] < 0xF0 else -1


@dataclass(frozen=True, eq=False)
class Stream:
    """The events of a file, but for the ends of tracks, in the order of time.

    Attributes:
        content: the file.
        form: 0 or 1.
        resolution: ticks a quarter note.
        tracks: how many.
        tick: (E,) from the start of the file.
        track: (E,) from 0.
        voice: (E,) 16 times the port and the channel; of no meaning for what is no channel message.
        status: (E,) first byte, written or not.
        first: (E,) the byte behind it.
        second: (E,) the byte behind that; 0 where a channel message has none.
        place: (E,) where in the file the byte behind the status stands.
        end: (E,) where the event ends.
        tempi: (T, 2) tick and microseconds a quarter note, in the order of time.
    """

    content: bytes
    form: int
    resolution: int
    tracks: int
    tick: Ticks
    track: Ticks
    voice: Ticks
    status: Ticks
    first: Ticks
    second: Ticks
    place: Ticks
    end: Ticks
    tempi: Ticks

    @property
    def kind(self) -> Ticks:
        """(E,) the kind of a channel message, 0xF0 for anything else."""
        return self.status & 0xF0

    @cached_property
    def rows(self) -> list[Row]:
        """The same, event by event."""
        columns = (self.tick, self.track, self.voice >> 4, self.status, self.place, self.end)
        return [
            Row(tick, track, port, bytes((status,)) + self.content[place:end])
            for tick, track, port, status, place, end in zip(
                *(each.tolist() for each in columns), strict=True
            )
        ]


class _DamageError(Exception):
    """What is wrong inside a track, and at which byte of it."""

    def __init__(self, what: str, at: int | None = None) -> None:
        super().__init__(what)
        self.at = at


def read_stream(content: bytes, *, name: str) -> Stream:
    """Walks a file.

    Raises:
        UserError: what is not MIDI of format 0 or 1 in ticks a quarter note; fewer or more tracks than the
            header tells of, a damaged track, more events or ticks than the bounds.
    """
    form, told, division = _header(content, name)
    walked: list[_Walk] = []
    left = MAX_EVENTS
    for number, (start, end) in enumerate(_chunks(content), start=1):
        try:
            if end > len(content):
                raise _DamageError(f"a file that ends {end - len(content):,} bytes early")
            walked.append(_Walk(content[start:end], start).walked(left))
        except _DamageError as damage:
            place = "" if damage.at is None else f", byte {start + damage.at:,}"
            raise UserError(Fault(name, _RULE, f"{damage} (track {number}{place})")) from None
        left -= len(walked[-1].ticks)
        if number > told:  # the header's count has 16 bits, so that no walk is longer than that
            break
    if len(walked) != told:
        found = sum(1 for _ in _chunks(content))
        raise UserError(Fault(name, _RULE, f"{found} tracks where its header tells of {told}"))
    return _merged(content, form, division, walked)


def _header(content: bytes, name: str) -> tuple[int, int, int]:
    """Format, number of tracks and division, as the header tells them."""
    if content[:4] != b"MThd":
        got = f"{content[:4]!r}" if content else "an empty file"
        raise UserError(Fault(name, "must be a MIDI file, which begins with 'MThd'", got))
    if len(content) < 14:
        raise UserError(Fault(name, _RULE, f"a header that is cut off after {len(content)} of 14 bytes"))
    length, form, told, division = struct.unpack(">IHHH", content[4:14])
    if length < 6 or form > 1:
        got = f"format {form}" if form > 1 else f"a header of {length} bytes"
        raise UserError(Fault(name, "must be a MIDI file of format 0 or 1", got))
    if division & 0x8000 or division == 0:
        got = "SMPTE time" if division else "no resolution"
        remedy = "save it again with a tempo map"
        raise UserError(Fault(name, "must count time in ticks a quarter note", got, remedy))
    if 8 + length > len(content):
        got = f"a header of {length:,} bytes in a file of {len(content):,}"
        raise UserError(Fault(name, _RULE, got))
    return form, told, division


def _chunks(content: bytes) -> Iterator[tuple[int, int]]:
    """Where the events of each track begin and should end."""
    at = 8 + int.from_bytes(content[4:8], "big")
    while at + 8 <= len(content):
        kind, length = struct.unpack_from(">4sI", content, at)
        at += 8 + length
        if kind == b"MTrk":  # whatever else there is, readers pass over
            yield at - length, at


def _numbers() -> array[int]:
    return array("q")


@dataclass(eq=False)
class _Walk:
    """One track, walked from its beginning to its end.

    Attributes:
        track: its bytes.
        base: where in the file they begin.
        ticks: of each event.
        places: where the byte behind the status of each stands.
        states: the status of each.
        ends: where each that is no channel message ends.
        ports: in pairs, the first event that a port is for, and the port.
        tempi: in pairs, tick and microseconds.
    """

    track: bytes
    base: int
    ticks: array[int] = field(default_factory=_numbers)
    places: array[int] = field(default_factory=_numbers)
    states: array[int] = field(default_factory=_numbers)
    ends: array[int] = field(default_factory=_numbers)
    ports: array[int] = field(default_factory=_numbers)
    tempi: array[int] = field(default_factory=_numbers)

    def walked(self, most: int) -> _Walk:
        """Itself, with its events.

        Raises:
            _DamageError: it is damaged, or has more events than `most`.
        """
        damage = None
        try:
            self._follow(most)
        except IndexError:
            damage = _DamageError("an event that is cut off", len(self.track))
        except _DamageError as error:
            damage = error
        self._check_data()  # first, as a wrong byte misleads whatever follows
        if damage:
            raise damage
        return self

    def _follow(self, most: int) -> None:
        """Walks from event to event; half of all the time of a reading is spent here."""
        track, lengths, size = self.track, _DATA, len(self.track)
        add_tick, add_place, add_status = self.ticks.append, self.places.append, self.states.append
        at = tick = running = 0
        for _ in range(most):
            if at >= size:
                break
            delta = track[at]
            at += 1
            if delta > 0x7F:
                delta, at = _variable_length(track, at - 1)
            tick += delta
            status = track[at]
            if status < 0x80:
                status = running
                if not running:
                    raise _DamageError("data without a status", at)
            elif status < 0xF0:
                running = status
                at += 1
            else:
                at = self._pass(status, tick, at + 1)
                if at < 0:
                    break
                continue
            add_tick(tick)
            add_place(at)
            add_status(status)
            at += lengths[status]
        else:
            if at < size:
                raise _DamageError(f"more than {MAX_EVENTS:,} events", at)
        if at > size:
            raise IndexError
        if tick > MAX_TICKS:
            raise _DamageError(f"an event at tick {tick:,}, beyond {MAX_TICKS:,}")

    def _pass(self, status: int, tick: int, at: int) -> int:
        """Notes a meta event or a system exclusive; returns where the next event begins, -1 at the end."""
        track, start = self.track, at
        kind = -1
        if status == META:
            kind = track[at]
            if kind == _END_OF_TRACK:
                return -1
            at += 1
        elif status not in (_SYSEX, _SYSEX_MORE):
            raise _DamageError(f"the status {status:02X}, which no file may hold", at - 1)
        length, at = _variable_length(track, at)
        if at + length > len(track):
            raise IndexError
        if kind == TEMPO:
            if length != 3:
                raise _DamageError(f"a tempo of {length:,} bytes instead of 3", start - 1)
            self.tempi.extend((tick, int.from_bytes(track[at : at + 3], "big")))
        elif kind == PORT and length == 1:
            self.ports.extend((len(self.ticks), track[at] & 0x7F))
        self.ends.append(at + length)
        self.ticks.append(tick)
        self.places.append(start)
        self.states.append(status)
        return at + length

    def _check_data(self) -> None:
        """Refuses a channel message whose data are no data."""
        data = np.frombuffer(self.track, np.uint8)
        places, states = np.frombuffer(self.places, np.int64), np.frombuffer(self.states, np.int64)
        both = np.concatenate([places[states < 0xF0], places[(states < 0xF0) & ~_is_short(states)] + 1])
        both = both[both < len(data)]
        if len(bad := both[data[both] > 0x7F]):
            at = int(bad.min())
            raise _DamageError(f"a byte of data of {self.track[at]}, beyond 127", at)

    def columns(self) -> tuple[Ticks, Ticks, Ticks, Ticks, Ticks]:
        """Tick, status, port, and where in the file each event begins behind its status and ends."""
        states, places = np.array(self.states, np.int64), np.array(self.places, np.int64)
        end = places + np.where(_is_short(states), 1, 2)
        end[states >= 0xF0] = self.ends
        since, port = np.array(self.ports, np.int64).reshape(-1, 2).T
        named = np.searchsorted(since, np.arange(len(states)), side="right")
        ports = np.concatenate([[0], port])[named]
        return np.array(self.ticks, np.int64), states, ports, places + self.base, end + self.base


def _is_short(status: Ticks) -> npt.NDArray[np.bool_]:
    """Whether a channel message has one byte of data."""
    return np.asarray(status & 0xE0 == 0xC0)


def _merged(content: bytes, form: int, resolution: int, walked: list[_Walk]) -> Stream:
    """The tracks as one stream."""
    sizes = [len(each.ticks) for each in walked]
    parts = [each.columns() for each in walked] or [(np.zeros(0, np.int64),) * 5]
    tick, status, port, place, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(tick, kind="stable")
    status, place = status[order], place[order]
    data = np.frombuffer(content, np.uint8)
    last = len(content) - 1
    second = data[np.minimum(place + 1, last)].astype(np.int64)
    tempi = np.concatenate([np.zeros(0, np.int64), *(np.array(each.tempi, np.int64) for each in walked)])
    tempi = tempi.reshape(-1, 2)
    return Stream(
        content=content,
        form=form,
        resolution=resolution,
        tracks=len(walked),
        tick=tick[order],
        track=np.repeat(np.arange(len(walked)), sizes)[order],
        voice=16 * port[order] + (status & 0x0F),
        status=status,
        first=data[np.minimum(place, last)].astype(np.int64),
        second=np.where(_is_short(status), 0, second),
        place=place,
        end=end[order],
        tempi=tempi[np.argsort(tempi[:, 0], kind="stable")],
    )


def _variable_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length quantity (7 bits a byte, the highest first, at most four) and the place behind it."""
    value = 0
    for place in range(at, at + 4):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    raise _DamageError("a number of more than four bytes", at)
