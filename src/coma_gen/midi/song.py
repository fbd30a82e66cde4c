"""A MIDI file as it was read: its events, its tempo map, and which of them are whose note."""

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
"""Controllers of pedals that nothing here hears."""


@dataclass(frozen=True, eq=False)
class Song:
    """What everything that looks at a file is made of.

    Attributes:
        stream: its events.
        clock: its tempo map.
        pairs: its notes, those of drums and those without an end too.
        of_drums: (E,) which events are of a rhythm channel.
    """

    stream: Stream
    clock: TempoMap
    pairs: Pairs
    of_drums: npt.NDArray[np.bool_]

    @cached_property
    def is_drum(self) -> npt.NDArray[np.bool_]:
        """(N,) which notes are of drums."""
        return np.asarray(self.of_drums[self.pairs.on])

    @cached_property
    def has_end(self) -> npt.NDArray[np.bool_]:
        """(N,) which notes end."""
        return np.asarray(self.pairs.off >= 0)

    @cached_property
    def played(self) -> tuple[Ticks, Ticks]:
        """The events that the music's notes begin and end with: no drums, and nothing without an end."""
        chosen = self.has_end & ~self.is_drum
        return self.pairs.on[chosen], self.pairs.off[chosen]

    @cached_property
    def drum_notes(self) -> int:
        """How many notes of drums are left out."""
        return int(np.count_nonzero(self.is_drum))

    @cached_property
    def endless_notes(self) -> int:
        """How many others are left out because they have no end."""
        return int(np.count_nonzero(~self.has_end & ~self.is_drum))

    @cached_property
    def borrowed_ends(self) -> int:
        """How many notes end with another of their key, as they have no release of their own."""
        return int(np.count_nonzero(self.has_end & ~self.is_drum & ~self.pairs.is_own))

    @cached_property
    def ports(self) -> list[int]:
        """The ports whose channels play."""
        return [int(port) for port in np.unique(self.stream.voice[self.pairs.on] // 16)]

    @cached_property
    def pedal_moves(self) -> tuple[Ticks, Ticks]:
        """The events that move the sustain pedal, voice by voice in the order of time, and their values.

        A reset of all controllers lifts a pedal that is down. Of drums only what lifts one counts, as the
        channel may have been a melodic one before.
        """
        stream = self.stream
        is_control = stream.kind == CONTROL
        resets = is_control & (stream.first == RESET)
        found = np.flatnonzero(is_control & (stream.first == SUSTAIN) | resets)
        found = found[np.argsort(stream.voice[found], kind="stable")]
        value = np.where(resets[found], 0, stream.second[found])
        audible = ~self.of_drums[found] | (value < DOWN_FROM)
        found, value = found[audible], value[audible]
        voice = stream.voice[found]
        is_up = np.append(True, (value[:-1] < DOWN_FROM) | (voice[1:] != voice[:-1]))[: len(found)]
        moves = ~(is_up & (resets[found] | self.of_drums[found]))
        return found[moves], value[moves]

    @cached_property
    def last_tick(self) -> int:
        """Where the last note ends, or the pedal last moves."""
        tick_arrays = (self.stream.tick[events] for events in (*self.played, self.pedal_moves[0]))
        return max(int(ticks.max(initial=0)) for ticks in tick_arrays)

    def pressed(self, end: int) -> dict[int, Ticks]:
        """The ticks at which the pedal of each voice goes down and up, (P, 2).

        Args:
            end: the last tick; a pedal that is still down rises there.
        """
        found, value = self.pedal_moves
        voices, starts = np.unique(self.stream.voice[found], return_index=True)
        moves = np.stack([self.stream.tick[found], value], axis=1)
        parts = np.split(moves, starts[1:]) if len(voices) else []
        return {voice: pedal_intervals(part, end) for voice, part in zip(voices.tolist(), parts, strict=True)}

    def presses(self, controller: int) -> int:
        """How often a pedal of some kind goes down, on melodic channels."""
        stream = self.stream
        found = np.flatnonzero((stream.kind == CONTROL) & (stream.first == controller) & ~self.of_drums)
        found = found[np.argsort(stream.voice[found], kind="stable")]
        down, voice = stream.second[found] >= DOWN_FROM, stream.voice[found]
        begins = np.append(True, ~down[:-1] | (voice[1:] != voice[:-1]))[: len(found)]
        return int(np.count_nonzero(down & begins))


def without_notes(song: Song) -> str:
    """What a file has that has no notes for us."""
    drums = f"{song.drum_notes:,} of drums" if song.drum_notes else ""
    endless = f"{song.endless_notes:,} without an end" if song.endless_notes else ""
    return " and ".join(each for each in (drums, endless) if each) or "none"
