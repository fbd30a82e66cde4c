"""One track of a MIDI file, walked from event to event.

An F7 packet is passed over by its length, whatever it holds; a message without a status goes on with the last
one of the track, also behind a system exclusive or meta event, which should have ended it. What follows the
track's end is passed over.

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
"""Bytes of data by status: program changes and channel pressure carry one, other channel messages two."""


class DamageError(Exception):
    """What is wrong inside a track, and at which byte of it."""

    def __init__(self, what: str, at: int | None = None) -> None:
        super().__init__(what)
        self.at = at


def _numbers() -> array[int]:
    return array("q")


@dataclass(eq=False)
class Walk:
    """One track, walked from its beginning to its end.

    Attributes:
        track: its bytes.
        base: where in the file they begin.
        ticks: of each event.
        data_starts: where the byte behind the status of each stands.
        states: the status of each.
        ends: where each that is no channel message ends.
        ports: in pairs, the first event that a port is for, and the port.
        tempi: in pairs, tick and microseconds.
    """

    track: bytes
    base: int
    ticks: array[int] = field(default_factory=_numbers)
    data_starts: array[int] = field(default_factory=_numbers)
    states: array[int] = field(default_factory=_numbers)
    ends: array[int] = field(default_factory=_numbers)
    ports: array[int] = field(default_factory=_numbers)
    tempi: array[int] = field(default_factory=_numbers)

    def walked(self, left: int, *, of: int) -> Walk:
        """Itself, with its events.

        Args:
            left: how many events there may be.
            of: how many there may be in the whole file.

        Raises:
            DamageError: it is damaged, or has more events.
        """
        damage: DamageError | None = None
        try:
            if not self._follow(left):
                damage = DamageError(f"more than {of:,} events")
        except IndexError:
            damage = DamageError("an event that is cut off", len(self.track))
        except DamageError as error:
            damage = error
        self._check_data()  # first, as a wrong byte misleads whatever follows
        if damage:
            raise damage
        return self

    def _follow(self, most: int) -> bool:
        """Walks from event to event, if there are no more than so many: half of the time of a reading."""
        track, lengths, size = self.track, _DATA, len(self.track)
        add_tick, add_data_start, add_status = self.ticks.append, self.data_starts.append, self.states.append
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
                    raise DamageError("data without a status", at)
            elif status < 0xF0:
                running = status
                at += 1
            else:
                at = self._pass(status, tick, at + 1)
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

    def _pass(self, status: int, tick: int, at: int) -> int:
        """Notes a meta event or a system exclusive; returns where the next event begins, -1 at the end."""
        track, start = self.track, at
        kind = -1
        if status == META:
            kind = track[at]
            if kind == END_OF_TRACK:
                return -1
            at += 1
        elif status not in (_SYSEX, _SYSEX_MORE):
            raise DamageError(f"the status {status:02X}, which no file may hold", at - 1)
        length, at = _variable_length(track, at)
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
        self.states.append(status)
        return at + length

    def _check_data(self) -> None:
        """Refuses a channel message whose data are no data."""
        data = np.frombuffer(self.track, np.uint8)
        starts, states = np.frombuffer(self.data_starts, np.int64), np.frombuffer(self.states, np.int64)
        both = np.concatenate([starts[states < 0xF0], starts[(states < 0xF0) & ~is_short(states)] + 1])
        both = both[both < len(data)]
        if len(bad := both[data[both] > 0x7F]):
            at = int(bad.min())
            raise DamageError(f"a byte of data of {self.track[at]}, beyond 127", at)

    def columns(self) -> tuple[Ticks, Ticks, Ticks, Ticks, Ticks]:
        """Tick, status, port, and where in the file each event begins behind its status and ends."""
        states, data_starts = np.array(self.states, np.int64), np.array(self.data_starts, np.int64)
        end = data_starts + np.where(is_short(states), 1, 2)
        end[states >= 0xF0] = self.ends
        since, port = np.array(self.ports, np.int64).reshape(-1, 2).T
        named = np.searchsorted(since, np.arange(len(states)), side="right")
        ports = np.concatenate([[0], port])[named]
        return np.array(self.ticks, np.int64), states, ports, data_starts + self.base, end + self.base


def is_short(status: Ticks) -> npt.NDArray[np.bool_]:
    """Whether a channel message has one byte of data."""
    return np.asarray(status & 0xE0 == 0xC0)


def _variable_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length quantity (7 bits a byte, the highest first, at most four) and the index behind it."""
    value = 0
    for index in range(at, at + 4):
        byte = data[index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, index + 1
    raise DamageError("a number of more than four bytes", at)
