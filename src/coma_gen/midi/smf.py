"""Parses the events of a MIDI file, once for notes, pedal, prompts and sound.

Sizes are checked against bounds during parsing, so that a few bytes cannot expand to gigabytes. The tracks
are merged into one stream, sorted by tick and then by track, as a player does: one track may release a key
that another strikes.

Chunks of other kinds and the rest of a longer header are skipped.

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
from coma_gen.midi.smf_track import DamageError, TrackReader, is_short

MAX_EVENTS = 4_000_000
"""Maximum number of events of a file; a note has two, and an hour of MAESTRO about 80,000."""

MAX_TICKS = 2**31 - 1
_RULE = "must be a whole MIDI file"


class MidiEvent(NamedTuple):
    """One event.

    Attributes:
        tick: Ticks from the start of the file.
        track: Track, from 0.
        port: Port of the track.
        event: Bytes of the event, status first, even under running status.
    """

    tick: int
    track: int
    port: int
    event: bytes

    @property
    def kind(self) -> int:
        """The type of a channel message; 0xF0 for other events."""
        return self.event[0] & 0xF0

    @property
    def channel(self) -> int:
        """The channel of a channel message; -1 for other events."""
        return self.event[0] & 0x0F if self.event[0] < 0xF0 else -1

    @property
    def voice(self) -> int:
        """16 * port + channel of a channel message; -1 for other events."""
        return 16 * self.port + self.channel if self.event[0] < 0xF0 else -1


@dataclass(frozen=True, eq=False)
class Stream:
    """The events of a file without the ends of tracks, sorted by time.

    Attributes:
        content: Content of the file.
        form: Format, 0 or 1.
        resolution: Ticks per quarter note.
        tracks: Number of tracks.
        tick: (E,) ticks from the start of the file.
        track: (E,) tracks, from 0.
        voice: (E,) 16 * port + channel; undefined for events other than channel messages.
        status: (E,) status bytes, also under running status.
        first: (E,) first data bytes.
        second: (E,) second data bytes; 0 where a channel message has none.
        data_start: (E,) offsets in the file of the first data byte.
        end: (E,) offsets in the file of the end of the event.
        tempi: (T, 2) tick and microseconds per quarter note, sorted by time.
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
        """(E,) the type of a channel message; 0xF0 for other events."""
        return self.status & 0xF0

    @cached_property
    def rows(self) -> list[MidiEvent]:
        """The events as a list."""
        columns = (self.tick, self.track, self.voice >> 4, self.status, self.data_start, self.end)
        return [
            MidiEvent(tick, track, port, bytes((status,)) + self.content[data_start:end])
            for tick, track, port, status, data_start, end in zip(
                *(each.tolist() for each in columns), strict=True
            )
        ]


def read_stream(content: bytes, *, name: str) -> Stream:
    """Parses a file.

    Raises:
        UserError: The file is not MIDI of format 0 or 1 in ticks per quarter note, has another number of
            tracks than its header states, has a damaged track, or exceeds the bounds on events or ticks.
    """
    form, num_tracks, division = _parse_header(content, name)
    readers: list[TrackReader] = []
    left = MAX_EVENTS
    for number, (start, end) in enumerate(_iter_tracks(content), start=1):
        try:
            if end > len(content):
                raise DamageError(f"a file that ends {end - len(content):,} bytes early")
            readers.append(TrackReader(content[start:end], start).read(left, of=MAX_EVENTS))
            ticks = readers[-1].ticks
            if ticks and ticks[-1] > MAX_TICKS:
                raise DamageError(f"an event at tick {ticks[-1]:,}, beyond {MAX_TICKS:,}")
        except DamageError as damage:
            location = "" if damage.at is None else f", byte {start + damage.at:,}"
            raise UserError(Fault(name, _RULE, f"{damage} (track {number}{location})")) from None
        left -= len(readers[-1].ticks)
        if number > num_tracks:  # the header's count has 16 bits, which bounds the number of tracks read
            break
    if len(readers) != num_tracks:
        found = sum(1 for _ in _iter_tracks(content))
        raise UserError(Fault(name, _RULE, f"{found} tracks where its header states {num_tracks}"))
    return _merge_tracks(content, form, division, readers)


def _parse_header(content: bytes, name: str) -> tuple[int, int, int]:
    """Parses the header into format, number of tracks and division."""
    if content[:4] != b"MThd":
        got = repr(content[:4].decode("latin-1")) if content else "an empty file"
        remedy = "save it as a MIDI file in the program that wrote it"
        raise UserError(Fault(name, "must be a MIDI file, which begins with 'MThd'", got, remedy))
    if len(content) < 14:
        raise UserError(Fault(name, _RULE, f"a header that is cut off after {len(content)} of 14 bytes"))
    length, form, num_tracks, division = struct.unpack(">IHHH", content[4:14])
    if length < 6 or form > 1:
        got = f"format {form}" if form > 1 else f"a header of {length} bytes"
        raise UserError(Fault(name, "must be a MIDI file of format 0 or 1", got))
    if division & 0x8000 or division == 0:
        got = "SMPTE time" if division else "no resolution"
        remedy = "save it again with a tempo map"
        raise UserError(Fault(name, "must count time in ticks per quarter note", got, remedy))
    if 8 + length > len(content):
        got = f"a header of {length:,} bytes in a file of {len(content):,}"
        raise UserError(Fault(name, _RULE, got))
    return form, num_tracks, division


def _iter_tracks(content: bytes) -> Iterator[tuple[int, int]]:
    """Yields the offsets at which the events of each track begin and end."""
    at = 8 + int.from_bytes(content[4:8], "big")
    while at + 8 <= len(content):
        kind, length = struct.unpack_from(">4sI", content, at)
        at += 8 + length
        if kind == b"MTrk":  # other chunks are skipped
            yield at - length, at


def _merge_tracks(content: bytes, form: int, resolution: int, readers: list[TrackReader]) -> Stream:
    """Merges the tracks into one stream."""
    sizes = [len(each.ticks) for each in readers]
    parts = [each.columns() for each in readers] or [(np.zeros(0, np.int64),) * 5]
    tick, status, port, data_start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(tick, kind="stable")
    status, data_start = status[order], data_start[order]
    data = np.frombuffer(content, np.uint8)
    last = len(content) - 1
    second = data[np.minimum(data_start + 1, last)].astype(np.int64)
    tempi = np.concatenate([np.zeros(0, np.int64), *(np.array(each.tempi, np.int64) for each in readers)])
    tempi = tempi.reshape(-1, 2)
    return Stream(
        content=content,
        form=form,
        resolution=resolution,
        tracks=len(readers),
        tick=tick[order],
        track=np.repeat(np.arange(len(readers)), sizes)[order],
        voice=16 * port[order] + (status & 0x0F),
        status=status,
        first=data[np.minimum(data_start, last)].astype(np.int64),
        second=np.where(is_short(status), 0, second),
        data_start=data_start,
        end=end[order],
        tempi=tempi[np.argsort(tempi[:, 0], kind="stable")],
    )
