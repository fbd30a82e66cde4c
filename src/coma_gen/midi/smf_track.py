"""Parses one track of a MIDI file.

An F7 packet is skipped by its length, whatever it contains. Running status also continues after a system
exclusive or meta event, although the standard cancels it there. Data after the end of the track are skipped.

Format: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1988).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from coma_gen.midi.pedal_events import Ticks
from coma_gen.midi.smf_writer import END_OF_TRACK, META, PORT, TEMPO

_SYSEX, _SYSEX_MORE = 0xF0, 0xF7
_DATA = tuple(1 if status & 0xE0 == 0xC0 else 2 for status in range(0xF0))
"""Data bytes by status: one for program change and channel pressure, two for other channel messages."""


class DamageError(Exception):
    """Describes damage inside a track, and the offset of the byte."""

    def __init__(self, what: str, at: int | None = None) -> None:
        super().__init__(what)
        self.at = at


def _make_int64_array() -> array[int]:
    return array("q")


@dataclass(eq=False)
class TrackReader:
    """Parser of one track; the arrays grow as it reads.

    Attributes:
        track: Bytes of the track.
        base: Their offset in the file.
        ticks: Ticks of the events.
        data_starts: Offsets of their first data bytes.
        statuses: Their status bytes.
        ends: Offsets of the ends of events other than channel messages.
        ports: Pairs of the first event of a port, and the port.
        tempi: Pairs of tick and microseconds per quarter note.
    """

    track: bytes
    base: int
    ticks: array[int] = field(default_factory=_make_int64_array)
    data_starts: array[int] = field(default_factory=_make_int64_array)
    statuses: array[int] = field(default_factory=_make_int64_array)
    ends: array[int] = field(default_factory=_make_int64_array)
    ports: array[int] = field(default_factory=_make_int64_array)
    tempi: array[int] = field(default_factory=_make_int64_array)

    def read(self, left: int, *, of: int) -> TrackReader:
        """Reads all events and returns itself.

        Args:
            left: Maximum number of events.
            of: Maximum number of events of the whole file, for the error.

        Raises:
            DamageError: The track is damaged, or has more events.
        """
        damage: DamageError | None = None
        try:
            if not self._read_events(left):
                damage = DamageError(f"more than {of:,} events")
        except IndexError:
            damage = DamageError("an event that is cut off", len(self.track))
        except DamageError as error:
            damage = error
        self._check_data()  # first, since a wrong byte causes the errors after it
        if damage:
            raise damage
        return self

    def _read_events(self, most: int) -> bool:
        """Reads the events; False if there are more than `most`. Takes half of the time of reading a file."""
        track, lengths, size = self.track, _DATA, len(self.track)
        add_tick, add_data_start, add_status = (
            self.ticks.append,
            self.data_starts.append,
            self.statuses.append,
        )
        at = tick = running = 0
        for _ in range(most):
            if at >= size:
                break
            delta = track[at]
            at += 1
            if delta > 0x7F:
                delta, at = _read_variable_length(track, at - 1)
            tick += delta
            status = track[at]
            if status < 0x80:
                status = running
                if not running:
                    raise DamageError("data without a status", at)
            elif status < 0xF0:
                running = status
                at += 1
            else:
                at = self._read_meta_or_sysex(status, tick, at + 1)
                if at < 0:
                    break
                continue
            add_tick(tick)
            add_data_start(at)
            add_status(status)
            at += lengths[status]
        else:
            if at < size:
                return False
        if at > size:
            raise IndexError
        return True

    def _read_meta_or_sysex(self, status: int, tick: int, at: int) -> int:
        """Reads a meta or system exclusive event; returns the offset of the next event, -1 at the end."""
        track, start = self.track, at
        kind = -1
        if status == META:
            kind = track[at]
            if kind == END_OF_TRACK:
                return -1
            at += 1
        elif status not in (_SYSEX, _SYSEX_MORE):
            raise DamageError(f"the status {status:02X}, which is not allowed in a file", at - 1)
        length, at = _read_variable_length(track, at)
        if at + length > len(track):
            raise IndexError
        if kind == TEMPO:
            if length != 3:
                raise DamageError(f"a tempo of {length:,} bytes instead of 3", start - 1)
            self.tempi.extend((tick, int.from_bytes(track[at : at + 3], "big")))
        elif kind == PORT and length == 1:
            self.ports.extend((len(self.ticks), track[at] & 0x7F))
        self.ends.append(at + length)
        self.ticks.append(tick)
        self.data_starts.append(start)
        self.statuses.append(status)
        return at + length

    def _check_data(self) -> None:
        """Checks that the data bytes of channel messages are below 128."""
        data = np.frombuffer(self.track, np.uint8)
        starts, statuses = np.frombuffer(self.data_starts, np.int64), np.frombuffer(self.statuses, np.int64)
        both = np.concatenate([starts[statuses < 0xF0], starts[(statuses < 0xF0) & ~is_short(statuses)] + 1])
        both = both[both < len(data)]
        if len(bad := both[data[both] > 0x7F]):
            at = int(bad.min())
            raise DamageError(f"a data byte of {self.track[at]}, above 127", at)

    def columns(self) -> tuple[Ticks, Ticks, Ticks, Ticks, Ticks]:
        """Returns tick, status, port, and the offsets in the file of the data and the end of each event."""
        statuses, data_starts = np.array(self.statuses, np.int64), np.array(self.data_starts, np.int64)
        end = data_starts + np.where(is_short(statuses), 1, 2)
        end[statuses >= 0xF0] = self.ends
        since, port = np.array(self.ports, np.int64).reshape(-1, 2).T
        named = np.searchsorted(since, np.arange(len(statuses)), side="right")
        ports = np.concatenate([[0], port])[named]
        return np.array(self.ticks, np.int64), statuses, ports, data_starts + self.base, end + self.base


def is_short(status: Ticks) -> npt.NDArray[np.bool_]:
    """Whether a channel message has one byte of data."""
    return np.asarray(status & 0xE0 == 0xC0)


def _read_variable_length(data: bytes, at: int) -> tuple[int, int]:
    """Decodes a variable-length quantity (7 bits per byte, big-endian, at most 4) and returns its end."""
    value = 0
    for index in range(at, at + 4):
        byte = data[index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, index + 1
    raise DamageError("a number of more than four bytes", at)
