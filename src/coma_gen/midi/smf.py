"""Every event of a MIDI file, walked once: the one reading that notes, pedal, prompt and sound share.

What a file claims is held against bounds while it is still bytes, so that no few bytes grow into gigabytes.
The tracks of a file are one stream, in the order of time and within a tick in that of the tracks, as a player
merges them: a key that one track strikes may be released by another.

Chunks of other kinds and the rest of a longer header are passed over.

Format: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1988).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.midi.pedal_events import Ticks
from coma_gen.midi.smf_track import DamageError, Walk, is_short

MAX_EVENTS = 4_000_000
"""Of a whole file; a note is two, and an hour of MAESTRO has about 80,000."""

MAX_TICKS = 2**31 - 1
_RULE = "must be a whole MIDI file"


class MidiEvent(NamedTuple):
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
        data_start: (E,) where in the file the byte behind the status stands.
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
    data_start: Ticks
    end: Ticks
    tempi: Ticks

    @property
    def kind(self) -> Ticks:
        """(E,) the kind of a channel message, 0xF0 for anything else."""
        return self.status & 0xF0

    @cached_property
    def rows(self) -> list[MidiEvent]:
        """The same, event by event."""
        columns = (self.tick, self.track, self.voice >> 4, self.status, self.data_start, self.end)
        return [
            MidiEvent(tick, track, port, bytes((status,)) + self.content[data_start:end])
            for tick, track, port, status, data_start, end in zip(
                *(each.tolist() for each in columns), strict=True
            )
        ]


def read_stream(content: bytes, *, name: str) -> Stream:
    """Walks a file.

    Raises:
        UserError: what is not MIDI of format 0 or 1 in ticks a quarter note; fewer or more tracks than the
            header tells of, a damaged track, more events or ticks than the bounds.
    """
    form, told, division = _header(content, name)
    walked: list[Walk] = []
    left = MAX_EVENTS
    for number, (start, end) in enumerate(_chunks(content), start=1):
        try:
            if end > len(content):
                raise DamageError(f"a file that ends {end - len(content):,} bytes early")
            walked.append(Walk(content[start:end], start).walked(left, of=MAX_EVENTS))
            ticks = walked[-1].ticks
            if ticks and ticks[-1] > MAX_TICKS:
                raise DamageError(f"an event at tick {ticks[-1]:,}, beyond {MAX_TICKS:,}")
        except DamageError as damage:
            location = "" if damage.at is None else f", byte {start + damage.at:,}"
            raise UserError(Fault(name, _RULE, f"{damage} (track {number}{location})")) from None
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
        got = repr(content[:4].decode("latin-1")) if content else "an empty file"
        remedy = "save it as a MIDI file in the program that wrote it"
        raise UserError(Fault(name, "must be a MIDI file, which begins with 'MThd'", got, remedy))
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


def _merged(content: bytes, form: int, resolution: int, walked: list[Walk]) -> Stream:
    """The tracks as one stream."""
    sizes = [len(each.ticks) for each in walked]
    parts = [each.columns() for each in walked] or [(np.zeros(0, np.int64),) * 5]
    tick, status, port, data_start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(tick, kind="stable")
    status, data_start = status[order], data_start[order]
    data = np.frombuffer(content, np.uint8)
    last = len(content) - 1
    second = data[np.minimum(data_start + 1, last)].astype(np.int64)
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
        first=data[np.minimum(data_start, last)].astype(np.int64),
        second=np.where(is_short(status), 0, second),
        data_start=data_start,
        end=end[order],
        tempi=tempi[np.argsort(tempi[:, 0], kind="stable")],
    )
