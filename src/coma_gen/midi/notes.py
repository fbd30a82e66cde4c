"""Notes: music in seconds, the common representation of MIDI, tokens, augmentation, prompts and pictures.

A note has onset, duration, pitch and velocity; the sustain pedal is a list of intervals. Times are in
seconds, not ticks, so that music which sounds the same is equal, whatever the tempo map of its file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]
Midi = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Notes:
    """Piano music, sorted by onset, then pitch, duration and velocity.

    Attributes:
        onset: (N,) seconds from the start, not negative.
        duration: (N,) seconds, not negative.
        pitch: (N,) MIDI numbers, 0 to 127.
        velocity: (N,) 1 to 127.
        pedal: (P, 2) seconds at which the sustain pedal goes down and up, sorted, not overlapping.
    """

    onset: Seconds
    duration: Seconds
    pitch: Midi
    velocity: Midi
    pedal: Seconds

    @classmethod
    def of(cls, onset: Any, duration: Any, pitch: Any, velocity: Any, pedal: Any = ()) -> Notes:
        """Builds sorted notes from arrays of equal length; overlapping pedal intervals are merged.

        Raises:
            ValueError: Lengths differ, times are negative or not finite, pitches or velocities are out of
                range, or the pedal is released before it is pressed.
        """
        start, length = np.asarray(onset, np.float64), np.asarray(duration, np.float64)
        key, force = np.asarray(pitch), np.asarray(velocity)
        if not start.ndim == 1 or not start.shape == length.shape == key.shape == force.shape:
            raise ValueError("onset, duration, pitch and velocity must be of one length")
        if not all(np.isfinite(times).all() and (times >= 0).all() for times in (start, length)):
            raise ValueError("onsets and durations must be finite and not negative")
        if len(start) and not (
            key.min() >= 0 and key.max() <= 127 and force.min() >= 1 and force.max() <= 127
        ):
            raise ValueError("pitches must be 0 to 127 and velocities 1 to 127")
        order = np.lexsort((force, length, key, start))
        return cls(
            onset=start[order],
            duration=length[order],
            pitch=key[order].astype(np.uint8),
            velocity=force[order].astype(np.uint8),
            pedal=_merge_intervals(np.asarray(pedal, np.float64).reshape(-1, 2)),
        )

    @classmethod
    def empty(cls) -> Notes:
        """Returns music without notes and pedal."""
        return cls.of([], [], [], [])

    def __len__(self) -> int:
        return len(self.onset)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Notes):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("onset", "duration", "pitch", "velocity", "pedal")
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def end(self) -> float:
        """Time in seconds of the last release; 0 without notes."""
        return float((self.onset + self.duration).max(initial=0.0))

    @property
    def end_of_onsets(self) -> float:
        """Time in seconds of the last onset; 0 without notes."""
        return float(self.onset.max(initial=0.0))

    def between(self, start: float, end: float) -> Notes:
        """Returns the notes that begin in [start, end) seconds, and the pedal clipped to that span."""
        keep = (self.onset >= start) & (self.onset < end)
        pedal = np.clip(self.pedal, start, end)
        return Notes(
            onset=self.onset[keep],
            duration=self.duration[keep],
            pitch=self.pitch[keep],
            velocity=self.velocity[keep],
            pedal=pedal[pedal[:, 1] > pedal[:, 0]],
        )

    def until(self, end: float) -> Notes:
        """Returns the notes and pedal presses that begin before `end` seconds, with their full lengths."""
        keep = self.onset < end
        return Notes(
            onset=self.onset[keep],
            duration=self.duration[keep],
            pitch=self.pitch[keep],
            velocity=self.velocity[keep],
            pedal=self.pedal[self.pedal[:, 0] < end],
        )

    def shifted(self, seconds: float) -> Notes:
        """Returns the music shifted by `seconds` (earlier when negative).

        Raises:
            ValueError: A note or the pedal would begin before 0.
        """
        if min(self.onset.min(initial=np.inf), self.pedal.min(initial=np.inf)) + seconds < 0:
            raise ValueError("nothing may begin before 0 seconds")
        return Notes(self.onset + seconds, self.duration, self.pitch, self.velocity, self.pedal + seconds)

    def joined(self, other: Notes) -> Notes:
        """Returns the union of both, each at its own times."""
        return Notes.of(
            np.concatenate([self.onset, other.onset]),
            np.concatenate([self.duration, other.duration]),
            np.concatenate([self.pitch, other.pitch]),
            np.concatenate([self.velocity, other.velocity]),
            np.concatenate([self.pedal, other.pedal]),
        )


def _merge_intervals(intervals: Seconds) -> Seconds:
    """Sorts intervals (P, 2) and merges overlapping ones, not those that only touch (the pedal moved)."""
    if not np.isfinite(intervals).all() or (intervals < 0).any() or (intervals[:, 1] < intervals[:, 0]).any():
        raise ValueError("a pedal must fall at 0 seconds or later and rise after that")
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    if len(intervals) < 2:
        return intervals
    latest = np.maximum.accumulate(intervals[:, 1])
    first = np.concatenate([[True], intervals[1:, 0] >= latest[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([intervals[first, 0], latest[last]], axis=1)
