"""Finds drum events: those of channel 10, and of channels that a file switches to rhythm.

A bank takes effect with the next program change: 127 and 126 (XG) and 120 (GM2) make a channel a rhythm
channel, 121 (GM2) makes it melodic, including channel 10; any other bank restores its initial mode. GS
switches parts by system exclusive messages instead, and uses banks for other purposes; XG can use both. A
reset of the whole instrument restores all channels.

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
"""The drum channel (from 0) unless a file changes it."""
RHYTHM_BANKS, MELODY_BANK = (120, 126, 127), 121
_SYSEX, _BANK = 0xF0, 0
_GS_RESET = re.compile(rb"\x41.\x42\x12(\x40\x00\x7f\x00|\x00\x00\x7f[\x00\x01])..?", re.DOTALL)
_RESET = re.compile(rb"\x7e.\x09[\x01\x02\x03]\xf7|\x43[\x10-\x1f]\x4c\x00\x00\x7e\x00\xf7", re.DOTALL)
_GS_PART = re.compile(rb"\x41.\x42\x12\x40([\x10-\x1f])\x15([\x00-\x7f])..?", re.DOTALL)
_XG_PART = re.compile(rb"\x43[\x10-\x1f]\x4c\x08([\x00-\x0f])\x07([\x00-\x7f])\xf7", re.DOTALL)


@dataclass(eq=False)
class _ChannelModes:
    """Rhythm or melodic mode of the channels while the events are read.

    Attributes:
        index: Index of the current event.
        banks: Voice -> bank that the next program change selects.
        is_rhythm: Voice -> mode, for voices whose mode was changed.
        gs: Ports whose instrument was reset to GS.
        changes: Triples of voice, event index, and whether the voice is rhythm from there on.
    """

    index: int = 0
    banks: dict[int, int] = field(default_factory=dict)
    is_rhythm: dict[int, bool] = field(default_factory=dict)
    gs: set[int] = field(default_factory=set)
    changes: list[tuple[int, int, bool]] = field(default_factory=list)

    def set_rhythm(self, voice: int, *, is_rhythm: bool) -> None:
        """Sets the mode of a channel and records the change, if any."""
        if self.is_rhythm.get(voice, voice % 16 == DRUMS) != is_rhythm:
            self.is_rhythm[voice] = is_rhythm
            self.changes.append((voice, self.index, is_rhythm))

    def program(self, voice: int) -> None:
        """Handles a program change, which selects the last bank."""
        bank = self.banks.get(voice)
        if bank is None or voice // 16 in self.gs:
            return
        is_default = voice % 16 == DRUMS and bank != MELODY_BANK
        self.set_rhythm(voice, is_rhythm=bank in RHYTHM_BANKS or is_default)

    def reset(self, port: int) -> None:
        """Resets the channels of a port."""
        self.gs.discard(port)
        for voice in range(16 * port, 16 * port + 16):
            self.banks.pop(voice, None)
            self.set_rhythm(voice, is_rhythm=voice % 16 == DRUMS)

    def read_sysex(self, port: int, message: bytes) -> None:
        """Handles a system exclusive message, which may reset the instrument or set the mode of a part."""
        if _RESET.fullmatch(message):
            self.reset(port)
        elif _GS_RESET.fullmatch(message):
            self.reset(port)
            self.gs.add(port)
        elif found := _GS_PART.fullmatch(message):
            part = found[1][0] & 0x0F
            channel = DRUMS if part == 0 else part - 1 if part <= DRUMS else part
            self.set_rhythm(16 * port + channel, is_rhythm=found[2] != b"\0")
        elif found := _XG_PART.fullmatch(message):
            self.set_rhythm(16 * port + found[1][0], is_rhythm=found[2] != b"\0")


def find_drum_events(stream: Stream) -> npt.NDArray[np.bool_]:
    """Returns whether the channel of each event (E,) is a rhythm channel at that time.

    It is False for events without a channel.
    """
    is_drum = stream.voice % 16 == DRUMS
    if changes := _find_changes(stream):
        is_drum = _apply_changes(stream.voice, is_drum, np.array(sorted(changes), np.int64))
    return np.asarray(is_drum & (stream.status < 0xF0))


def rhythm_voices(stream: Stream) -> frozenset[int]:
    """Returns the channels of the first port that are rhythm channels at any time, including channel 10."""
    return frozenset({DRUMS, *(voice for voice, _, is_rhythm in _find_changes(stream) if is_rhythm)})


def _find_changes(stream: Stream) -> list[tuple[int, int, bool]]:
    """Returns the mode changes: triples of voice, event index, and whether it is rhythm from there on."""
    kind = stream.kind
    is_bank = (kind == CONTROL) & (stream.first == _BANK)
    relevant = np.flatnonzero(is_bank | (kind == PROGRAM) | (stream.status == _SYSEX))
    modes = _ChannelModes()
    columns = (relevant, stream.status[relevant], stream.voice[relevant], stream.second[relevant])
    for index, status, voice, second in zip(*(each.tolist() for each in columns), strict=True):
        modes.index = index
        if status == _SYSEX:
            modes.read_sysex(voice // 16, _read_message(stream, index))
        elif status & 0xF0 == CONTROL:
            modes.banks[voice] = second
        else:
            modes.program(voice)
    return modes.changes


def _read_message(stream: Stream, index: int) -> bytes:
    """Returns the data of a system exclusive message, without its length."""
    message = stream.content[stream.data_start[index] : stream.end[index]]
    while message[:1] >= b"\x80":
        message = message[1:]
    return message[1:]


def _apply_changes(voice: Ticks, initial: npt.NDArray[np.bool_], changes: Ticks) -> npt.NDArray[np.bool_]:
    """Returns the mode (E,) at each event, from the initial modes (E,) and changes (C, 3) sorted by voice."""
    count = len(voice)
    last = (
        np.searchsorted(changes[:, 0] * count + changes[:, 1], voice * count + np.arange(count), side="right")
        - 1
    )
    changed = (last >= 0) & (changes[last, 0] == voice)
    return np.where(changed, changes[last, 2] > 0, initial)
