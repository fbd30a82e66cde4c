"""Music quantized to the tokenizer's grid of positions and bins.

Quantization is the only lossy step of the tokenizer: onsets are rounded to the nearest position, durations
and velocities to the nearest bin, pitches outside the range are dropped, and repeated notes of one key at one
position are merged. Notes at one position are sorted by pitch, since the order in which they were played is
finer than the grid.
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
    """Quantized notes, sorted by onset and pitch and unique in both.

    Attributes:
        onset: (N,) positions from the start.
        pitch: (N,) MIDI note numbers.
        duration: (N,) indices of duration bins.
        velocity: (N,) indices of velocity bins.
        pedal: (P, 2) positions of pedal presses and releases, sorted; a release may coincide with the next
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
        """Sorts notes; of notes with equal onset and pitch it keeps the longest, then the loudest."""
        order = np.lexsort((-velocity, -duration, pitch, onset))
        onset, pitch, duration, velocity = onset[order], pitch[order], duration[order], velocity[order]
        first = np.ones(len(onset), bool)
        first[1:] = (np.diff(onset) != 0) | (np.diff(pitch) != 0)
        return cls(onset[first], pitch[first], duration[first], velocity[first], _merge_pedal(pedal))

    def shifted(self, semitones: int, velocity_bins: int, vocabulary: Vocabulary) -> Grid:
        """Transposes and shifts velocities; pitches outside the range are moved back by octaves."""
        low, high = vocabulary.pitch_range
        pitch = self.pitch + semitones
        pitch = pitch + 12 * np.maximum(0, -((pitch - low) // 12))
        pitch = pitch - 12 * np.maximum(0, -((high - pitch) // 12))
        velocity = np.clip(self.velocity + velocity_bins, 0, len(vocabulary.velocities) - 1)
        keep = (pitch >= low) & (pitch <= high)
        return Grid.of(self.onset[keep], pitch[keep], self.duration[keep], velocity[keep], self.pedal)


def _merge_pedal(intervals: Positions) -> Positions:
    """Sorts intervals (P, 2), extends each to at least one position and merges those that overlap."""
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
    """Quantizes notes to the grid of a vocabulary, with the pedal if it has pedal tokens."""
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
    """Converts a grid to notes in seconds; a note ends at the latest when its key is struck again."""
    duration = np.asarray(vocabulary.durations, np.int64)[grid.duration]
    order = np.lexsort((grid.onset, grid.pitch))
    onset, pitch = grid.onset[order], grid.pitch[order]
    gap = np.where(pitch[1:] == pitch[:-1], onset[1:] - onset[:-1], np.iinfo(np.int64).max)
    duration[order[:-1]] = np.minimum(duration[order[:-1]], gap)
    rate = float(vocabulary.positions_per_second)
    velocity = np.asarray(vocabulary.velocities, np.int64)[grid.velocity]
    return Notes.of(grid.onset / rate, duration / rate, grid.pitch, velocity, grid.pedal / rate)


def _nearest_position(seconds: npt.NDArray[np.float64], vocabulary: Vocabulary) -> Positions:
    return np.rint(seconds * vocabulary.positions_per_second).astype(np.int64)


def _nearest(bins: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> Positions:
    """Returns the index of the nearest bin of each value, (N,); the lower one of two equally near."""
    return np.searchsorted((bins[1:] + bins[:-1]) / 2, values, side="left").astype(np.int64)
