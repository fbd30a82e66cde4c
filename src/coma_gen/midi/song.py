"""A parsed MIDI file: its events, its tempo map, and its notes as pairs of events."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from coma_gen.midi.note_pairing import Pairs
from coma_gen.midi.pedal_events import DOWN_FROM, RESET, SUSTAIN, Ticks, pedal_intervals
from coma_gen.midi.smf import Stream
from coma_gen.midi.smf_writer import CONTROL
from coma_gen.midi.tempo_map import TempoMap

OTHER_PEDALS = {"sostenuto": 66, "soft": 67, "legato": 68, "hold_2": 69}
"""Controllers of pedals that are not interpreted."""


@dataclass(frozen=True, eq=False)
class Song:
    """A parsed MIDI file.

    Attributes:
        stream: Its events.
        clock: Its tempo map.
        pairs: Its notes, including drums and notes without an end.
        is_drum_event: (E,) which events are on a rhythm channel.
    """

    stream: Stream
    clock: TempoMap
    pairs: Pairs
    is_drum_event: npt.NDArray[np.bool_]

    @cached_property
    def is_drum(self) -> npt.NDArray[np.bool_]:
        """(N,) which notes are drums."""
        return np.asarray(self.is_drum_event[self.pairs.on])

    @cached_property
    def has_end(self) -> npt.NDArray[np.bool_]:
        """(N,) which notes have an end."""
        return np.asarray(self.pairs.off >= 0)

    @cached_property
    def sounding_notes(self) -> tuple[Ticks, Ticks]:
        """The events that begin and end notes, without drums and notes without an end."""
        chosen = self.has_end & ~self.is_drum
        return self.pairs.on[chosen], self.pairs.off[chosen]

    @cached_property
    def drum_notes(self) -> int:
        """The number of drum notes, which are dropped."""
        return int(np.count_nonzero(self.is_drum))

    @cached_property
    def endless_notes(self) -> int:
        """The number of other notes without an end, which are dropped."""
        return int(np.count_nonzero(~self.has_end & ~self.is_drum))

    @cached_property
    def borrowed_ends(self) -> int:
        """The number of notes without a release of their own, which end with another note of their key."""
        return int(np.count_nonzero(self.has_end & ~self.is_drum & ~self.pairs.is_own))

    @cached_property
    def ports(self) -> list[int]:
        """The ports with notes."""
        return [int(port) for port in np.unique(self.stream.voice[self.pairs.on] // 16)]

    @cached_property
    def pedal_moves(self) -> tuple[Ticks, Ticks]:
        """The events that move the sustain pedal, sorted by voice and time, and their values.

        "Reset all controllers" releases a pedal that is down. On drum channels only releases count, since the
        channel may have been melodic before.
        """
        stream = self.stream
        is_control = stream.kind == CONTROL
        resets = is_control & (stream.first == RESET)
        found = np.flatnonzero(is_control & (stream.first == SUSTAIN) | resets)
        found = found[np.argsort(stream.voice[found], kind="stable")]
        value = np.where(resets[found], 0, stream.second[found])
        audible = ~self.is_drum_event[found] | (value < DOWN_FROM)
        found, value = found[audible], value[audible]
        voice = stream.voice[found]
        is_up = np.append(True, (value[:-1] < DOWN_FROM) | (voice[1:] != voice[:-1]))[: len(found)]
        moves = ~(is_up & (resets[found] | self.is_drum_event[found]))
        return found[moves], value[moves]

    @cached_property
    def last_tick(self) -> int:
        """The tick at which the last note ends or the pedal last moves."""
        tick_arrays = (self.stream.tick[events] for events in (*self.sounding_notes, self.pedal_moves[0]))
        return max(int(ticks.max(initial=0)) for ticks in tick_arrays)

    def sustain_intervals(self, end: int) -> dict[int, Ticks]:
        """Computes the intervals (P, 2), in ticks, during which the pedal of each voice is down.

        Args:
            end: Last tick, where a pedal that is still down is released.
        """
        found, value = self.pedal_moves
        voices, starts = np.unique(self.stream.voice[found], return_index=True)
        moves = np.stack([self.stream.tick[found], value], axis=1)
        parts = np.split(moves, starts[1:]) if len(voices) else []
        return {voice: pedal_intervals(part, end) for voice, part in zip(voices.tolist(), parts, strict=True)}

    def count_presses(self, controller: int) -> int:
        """Counts the presses of a pedal on melodic channels."""
        stream = self.stream
        found = np.flatnonzero((stream.kind == CONTROL) & (stream.first == controller) & ~self.is_drum_event)
        found = found[np.argsort(stream.voice[found], kind="stable")]
        down, voice = stream.second[found] >= DOWN_FROM, stream.voice[found]
        begins = np.append(True, ~down[:-1] | (voice[1:] != voice[:-1]))[: len(found)]
        return int(np.count_nonzero(down & begins))


def describe_missing_notes(song: Song) -> str:
    """Describes the notes of a file that are not read, for the error of a file without any others."""
    drums = f"{song.drum_notes:,} of drums" if song.drum_notes else ""
    endless = f"{song.endless_notes:,} without an end" if song.endless_notes else ""
    return " and ".join(each for each in (drums, endless) if each) or "none"
