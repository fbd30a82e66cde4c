"""A tempo map: converts the ticks of a MIDI file to seconds and back.

Times are accumulated as integers, in units of 1 / resolution microseconds, and divided once at the end, so
tempo changes add no rounding errors. The result is float64, because float32 cannot distinguish late ticks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.midi.notes import Seconds
from coma_gen.midi.pedal_events import Ticks

DEFAULT_TEMPO = 500_000
"""Microseconds per quarter note before the first tempo event."""


@dataclass(frozen=True, eq=False)
class TempoMap:
    """Tempo changes of a file.

    Attributes:
        ticks: (M,) tick of each change, ascending from 0; of several at one tick the last applies.
        tempo: (M,) microseconds per quarter note, above 0.
        resolution: Ticks per quarter note.
    """

    ticks: Ticks
    tempo: Ticks
    resolution: int

    @classmethod
    def of(cls, ticks: npt.ArrayLike, tempo: npt.ArrayLike, *, resolution: int) -> TempoMap:
        """Builds the map of a file's tempo events, with the default tempo before the first.

        Raises:
            ValueError: A tempo is not above 0, or the events are not sorted.
        """
        clock = cls(
            np.concatenate([[0], np.asarray(ticks, np.int64)]),
            np.concatenate([[DEFAULT_TEMPO], np.asarray(tempo, np.int64)]),
            resolution,
        )
        if clock.tempo.min() < 1 or np.diff(clock.ticks).min(initial=0) < 0:
            raise ValueError("tempi must be above 0, in the order of time")
        return clock

    @property
    def _elapsed_at_changes(self) -> Ticks:
        """(M,) elapsed time at each change, in units of 1 / resolution microseconds."""
        elapsed: Ticks = np.concatenate([[0], np.cumsum(np.diff(self.ticks) * self.tempo[:-1])])
        return elapsed

    @property
    def _units_per_second(self) -> float:
        return self.resolution * 1e6

    def _compute_elapsed(self, ticks: Ticks | int) -> Ticks:
        """Elapsed time in units of 1 / resolution microseconds: at most 2**55 for valid files."""
        at = np.searchsorted(self.ticks, ticks, side="right") - 1
        return np.asarray(self._elapsed_at_changes[at] + (ticks - self.ticks[at]) * self.tempo[at], np.int64)

    def seconds(self, ticks: Ticks | int) -> Seconds:
        """Converts ticks to seconds from the start of the file."""
        return np.asarray(self._compute_elapsed(ticks) / self._units_per_second, np.float64)

    def span(self, start: Ticks, end: Ticks) -> Seconds:
        """Returns the seconds from tick `start` to tick `end`, rounded once."""
        return np.asarray(
            (self._compute_elapsed(end) - self._compute_elapsed(start)) / self._units_per_second, np.float64
        )

    def nearest_tick(self, seconds: Seconds | float) -> Ticks:
        """Converts seconds to the nearest ticks."""
        time = np.asarray(seconds, np.float64) * self._units_per_second
        changes = self._elapsed_at_changes
        at = np.searchsorted(changes, time, side="right") - 1
        return np.asarray(self.ticks[at] + np.rint((time - changes[at]) / self.tempo[at]), np.int64)

    def tick_seconds(self, from_tick: int) -> float:
        """Returns the maximum duration of a tick in seconds from `from_tick` on."""
        at = int(np.searchsorted(self.ticks, from_tick, side="right")) - 1
        return float(self.tempo[at:].max() / self._units_per_second)
