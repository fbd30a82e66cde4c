"""Music on the tokenizer's grid: whole positions and bins, the last form before tokens and the first
after them.

Here, and nowhere else, something is lost: onsets go to the nearest position, durations and velocities to
the nearest bin, pitches outside the range are left out, and a key that is struck twice within one
position is struck once. Notes of one position are in the order of their pitch, because the order in which
they were played is finer than the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.vocabulary import Vocabulary

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Notes as whole numbers, sorted by onset and pitch, no two alike in both.

    Attributes:
        onset: (N,) positions from the start.
        pitch: (N,) MIDI numbers.
        duration: (N,) indices of duration bins.
        velocity: (N,) indices of velocity bins.
        pedal: (P, 2) positions at which the pedal goes down and up, sorted; a release may meet the next
            press.
    """

    onset: Positions
    pitch: Positions
    duration: Positions
    velocity: Positions
    pedal: Positions

    def __len__(self) -> int:
        return len(self.onset)

    @classmethod
    def of(
        cls, onset: Positions, pitch: Positions, duration: Positions, velocity: Positions, pedal: Positions
    ) -> Grid:
        """Sorts; of notes with one onset and pitch the longest stays, then the loudest."""
        order = np.lexsort((-velocity, -duration, pitch, onset))
        onset, pitch, duration, velocity = onset[order], pitch[order], duration[order], velocity[order]
        first = np.ones(len(onset), bool)
        first[1:] = (np.diff(onset) != 0) | (np.diff(pitch) != 0)
        return cls(onset[first], pitch[first], duration[first], velocity[first], _pedal(pedal))

    def shifted(self, semitones: int, velocity_bins: int, vocabulary: Vocabulary) -> Grid:
        """Transposed and made louder; what would leave the pitch range comes back by octaves."""
        low, high = vocabulary.pitch_range
        pitch = self.pitch + semitones
        pitch = pitch + 12 * np.maximum(0, -((pitch - low) // 12))
        pitch = pitch - 12 * np.maximum(0, -((high - pitch) // 12))
        velocity = np.clip(self.velocity + velocity_bins, 0, len(vocabulary.velocities) - 1)
        keep = (pitch >= low) & (pitch <= high)
        return Grid.of(self.onset[keep], pitch[keep], self.duration[keep], velocity[keep], self.pedal)


def _pedal(intervals: Positions) -> Positions:
    """(P, 2) sorted, each at least one position long, those that overlap joined, those that touch kept
    apart.
    """
    pedal = intervals.reshape(-1, 2)
    pedal = pedal[np.lexsort((pedal[:, 1], pedal[:, 0]))]
    if not len(pedal):
        return pedal
    up = np.maximum(pedal[:, 1], pedal[:, 0] + 1)
    latest = np.maximum.accumulate(up)
    first = np.concatenate([[True], pedal[1:, 0] >= latest[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([pedal[first, 0], latest[last]], axis=1)


def quantize(notes: Notes, vocabulary: Vocabulary) -> Grid:
    """Notes on the grid of a vocabulary; the pedal too where it has pedal tokens."""
    low, high = vocabulary.pitch_range
    keep = (notes.pitch >= low) & (notes.pitch <= high)
    pedal = notes.pedal if vocabulary.pedal == "tokens" else np.zeros((0, 2))
    return Grid.of(
        _nearest_position(notes.onset[keep], vocabulary),
        notes.pitch[keep].astype(np.int64),
        _nearest(vocabulary.duration_seconds, notes.duration[keep]),
        _nearest(np.asarray(vocabulary.velocities, np.float64), notes.velocity[keep].astype(np.float64)),
        _nearest_position(pedal, vocabulary),
    )


def to_notes(grid: Grid, vocabulary: Vocabulary) -> Notes:
    """The music of a grid in seconds; a key that is struck again is released first."""
    duration = np.asarray(vocabulary.durations, np.int64)[grid.duration]
    order = np.lexsort((grid.onset, grid.pitch))
    onset, pitch = grid.onset[order], grid.pitch[order]
    room = np.where(pitch[1:] == pitch[:-1], onset[1:] - onset[:-1], np.iinfo(np.int64).max)
    cut = duration.copy()
    cut[order[:-1]] = np.minimum(duration[order[:-1]], room)
    rate = float(vocabulary.positions_per_second)
    velocity = np.asarray(vocabulary.velocities, np.int64)[grid.velocity]
    return Notes.of(grid.onset / rate, cut / rate, grid.pitch, velocity, grid.pedal / rate)


def _nearest_position(seconds: npt.NDArray[np.float64], vocabulary: Vocabulary) -> Positions:
    return np.rint(seconds * vocabulary.positions_per_second).astype(np.int64)


def _nearest(bins: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> Positions:
    """(N,) index of the bin next to each value; the lower one where two are equally near."""
    return np.searchsorted((bins[1:] + bins[:-1]) / 2, values, side="left").astype(np.int64)
