"""Which notes are drums: those of channel 10, and of what channels a file makes rhythm or melody by itself.

A bank takes effect with the next program: 127 and 126 (XG) and 120 (GM2) make a channel a rhythm channel, 121
(GM2) a melodic one, channel 10 too; any other leaves it as it was at first. GS tells its parts by system
exclusive instead, and its banks mean other sounds; XG can, too. A reset of the whole instrument undoes all.

Formats: General MIDI 2 (MIDI Manufacturers Association, 1999), Yamaha XG, Roland GS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from coma_gen.midi.pedal_events import Ticks
from coma_gen.midi.smf import Stream
from coma_gen.midi.smf_writer import CONTROL, PROGRAM

DRUMS = 9
"""The channel of drums, counted from 0, where a file says nothing else."""
RHYTHM_BANKS, MELODY_BANK = (120, 126, 127), 121
_SYSEX, _BANK = 0xF0, 0
_GS_RESET = re.compile(rb"\x41.\x42\x12(\x40\x00\x7f\x00|\x00\x00\x7f[\x00\x01])..?", re.DOTALL)
_RESET = re.compile(rb"\x7e.\x09[\x01\x02\x03]\xf7|\x43[\x10-\x1f]\x4c\x00\x00\x7e\x00\xf7", re.DOTALL)
_GS_PART = re.compile(rb"\x41.\x42\x12\x40([\x10-\x1f])\x15([\x00-\x7f])..?", re.DOTALL)
_XG_PART = re.compile(rb"\x43[\x10-\x1f]\x4c\x08([\x00-\x0f])\x07([\x00-\x7f])\xf7", re.DOTALL)


@dataclass(eq=False)
class _Parts:
    """What the channels are, as far as a file has told.

    Attributes:
        index: the event that is looked at.
        banks: the bank that waits for a program, by voice.
        is_rhythm: voices that are not what they are at first.
        gs: ports whose instrument was reset to GS.
        changes: in threes, voice, event, and whether it is rhythm from there on.
    """

    index: int = 0
    banks: dict[int, int] = field(default_factory=dict)
    is_rhythm: dict[int, bool] = field(default_factory=dict)
    gs: set[int] = field(default_factory=set)
    changes: list[tuple[int, int, bool]] = field(default_factory=list)

    def become(self, voice: int, *, is_rhythm: bool) -> None:
        """Notes that a channel is rhythm from here on, or is not, where that is new."""
        if self.is_rhythm.get(voice, voice % 16 == DRUMS) != is_rhythm:
            self.is_rhythm[voice] = is_rhythm
            self.changes.append((voice, self.index, is_rhythm))

    def program(self, voice: int) -> None:
        """A program is chosen, and with it the bank that was named before."""
        bank = self.banks.get(voice)
        if bank is None or voice // 16 in self.gs:
            return
        is_first = voice % 16 == DRUMS and bank != MELODY_BANK
        self.become(voice, is_rhythm=bank in RHYTHM_BANKS or is_first)

    def reset(self, port: int) -> None:
        """The instrument begins anew."""
        self.gs.discard(port)
        for voice in range(16 * port, 16 * port + 16):
            self.banks.pop(voice, None)
            self.become(voice, is_rhythm=voice % 16 == DRUMS)

    def exclusive(self, port: int, message: bytes) -> None:
        """A system exclusive may name a part, or the kind of instrument."""
        if _RESET.fullmatch(message):
            self.reset(port)
        elif _GS_RESET.fullmatch(message):
            self.reset(port)
            self.gs.add(port)
        elif found := _GS_PART.fullmatch(message):
            part = found[1][0] & 0x0F
            channel = DRUMS if part == 0 else part - 1 if part <= DRUMS else part
            self.become(16 * port + channel, is_rhythm=found[2] != b"\0")
        elif found := _XG_PART.fullmatch(message):
            self.become(16 * port + found[1][0], is_rhythm=found[2] != b"\0")


def of_drums(stream: Stream) -> npt.NDArray[np.bool_]:
    """(E,) whether the channel of each event is a rhythm channel then; False for what is of no channel."""
    is_drum = stream.voice % 16 == DRUMS
    if changes := _changes(stream):
        is_drum = _with_changes(stream.voice, is_drum, np.array(sorted(changes), np.int64))
    return np.asarray(is_drum & (stream.status < 0xF0))


def rhythm_voices(stream: Stream) -> frozenset[int]:
    """The channels of the first port that a file has as rhythm channels for any time, channel 10 always."""
    return frozenset({DRUMS, *(voice for voice, _, is_rhythm in _changes(stream) if is_rhythm)})


def _changes(stream: Stream) -> list[tuple[int, int, bool]]:
    """In threes, voice, event, and whether it is rhythm from there on."""
    kind = stream.kind
    is_bank = (kind == CONTROL) & (stream.first == _BANK)
    telling = np.flatnonzero(is_bank | (kind == PROGRAM) | (stream.status == _SYSEX))
    parts = _Parts()
    columns = (telling, stream.status[telling], stream.voice[telling], stream.second[telling])
    for index, status, voice, second in zip(*(each.tolist() for each in columns), strict=True):
        parts.index = index
        if status == _SYSEX:
            parts.exclusive(voice // 16, _message(stream, index))
        elif status & 0xF0 == CONTROL:
            parts.banks[voice] = second
        else:
            parts.program(voice)
    return parts.changes


def _message(stream: Stream, index: int) -> bytes:
    """A system exclusive behind its length."""
    message = stream.content[stream.data_start[index] : stream.end[index]]
    while message[:1] >= b"\x80":
        message = message[1:]
    return message[1:]


def _with_changes(voice: Ticks, at_first: npt.NDArray[np.bool_], changes: Ticks) -> npt.NDArray[np.bool_]:
    """(E,) what holds at each event, of what holds at first and (C, 3) changes by voice and event."""
    count = len(voice)
    last = (
        np.searchsorted(changes[:, 0] * count + changes[:, 1], voice * count + np.arange(count), side="right")
        - 1
    )
    changed = (last >= 0) & (changes[last, 0] == voice)
    return np.where(changed, changes[last, 2] > 0, at_first)
