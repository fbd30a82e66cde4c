"""A tempo map: the ticks of a MIDI file as seconds, and seconds as its ticks.

In whole numbers until the last division, in float64 after it, as float32 cannot tell late ticks apart. A
tick is a microsecond of tempo divided by the ticks of a quarter: nothing is rounded on the way from tempo to
tempo, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.midi.notes import Seconds
from coma_gen.midi.pedal_events import Ticks

DEFAULT_TEMPO = 500_000
"""Microseconds a quarter note, where a file has not said so yet."""


@dataclass(frozen=True, eq=False)
class TempoMap:
    """When the tempo changes, and to what.

    Attributes:
        ticks: (M,) where each tempo begins, ascending from 0; of several at one tick the last holds.
        tempo: (M,) microseconds a quarter note, above 0.
        resolution: ticks a quarter note.
    """

    ticks: Ticks
    tempo: Ticks
    resolution: int

    @classmethod
    def of(cls, ticks: npt.ArrayLike, tempo: npt.ArrayLike, *, resolution: int) -> TempoMap:
        """The clock of a file's tempo events, at the default tempo before the first.

        Raises:
            ValueError: a tempo that is not above 0, or an event before the one it follows.
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
    def _before(self) -> Ticks:
        """(M,) microseconds times ticks a quarter that have passed where each tempo begins."""
        passed: Ticks = np.concatenate([[0], np.cumsum(np.diff(self.ticks) * self.tempo[:-1])])
        return passed

    @property
    def _per_second(self) -> float:
        return self.resolution * 1e6

    def _elapsed(self, ticks: Ticks | int) -> Ticks:
        """Microseconds times ticks a quarter: below 2**55 for what 31-bit ticks and 24-bit tempi can say."""
        at = np.searchsorted(self.ticks, ticks, side="right") - 1
        return np.asarray(self._before[at] + (ticks - self.ticks[at]) * self.tempo[at], np.int64)

    def seconds(self, ticks: Ticks | int) -> Seconds:
        """Seconds from the start of the file, of the shape of `ticks`."""
        return np.asarray(self._elapsed(ticks) / self._per_second, np.float64)

    def span(self, start: Ticks, end: Ticks) -> Seconds:
        """Seconds from `start` to `end`, rounded once."""
        return np.asarray((self._elapsed(end) - self._elapsed(start)) / self._per_second, np.float64)

    def nearest_tick(self, seconds: Seconds | float) -> Ticks:
        """The tick nearest to each time, of the shape of `seconds`."""
        wanted = np.asarray(seconds, np.float64) * self._per_second
        before = self._before
        at = np.searchsorted(before, wanted, side="right") - 1
        return np.asarray(self.ticks[at] + np.rint((wanted - before[at]) / self.tempo[at]), np.int64)

    def tick_seconds(self, from_tick: int) -> float:
        """The longest that a tick lasts from some time on."""
        at = int(np.searchsorted(self.ticks, from_tick, side="right")) - 1
        return float(self.tempo[at:].max() / self._per_second)
