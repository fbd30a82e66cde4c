"""What the coming bars are like, counted from token ids: so a model is told it, and asked for it.

    density     notes per second
    loudness    mean velocity of the notes
    register    mean pitch of the notes
    polyphony   notes that sound at once: the sum of their durations / seconds

A block is `BLOCK_BARS` bars, counted from the first bar that begins in a sequence, be that a piece, a
training window or a prompt. Each position carries the bins of its own block, so that the first tokens of a
block are told of what is still to come in it.

    window   .. note note | Bar ... | Bar ... | Bar ... | Bar ... | Bar ... | Bar ... | Bar ..
    block    0            | 0       | 0       | 0       | 0       | 1       | 1       | 1
    counted                 x         x         x         x         x         x

What stands before the first bar line belongs to the first block. Only whole bars are counted: those that are
followed by another bar line or by the end of the piece. A block with fewer than `LEAST_BARS` of them is not
told, nor are loudness and register of a block without notes.

Shapes: T tokens, V vocabulary, F conditions of a model, K bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.config.schema import CONDITION_BINS, CONDITIONS
from coma_gen.tokenizer.vocabulary import Vocabulary

Bins = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

BLOCK_BARS = 4
"""Of 2 s each: 8 s of music."""
LEAST_BARS = 2
"""A block with fewer whole bars is not told: a bar by itself says little of a density."""
NOT_TOLD = 0
RATIO = 1.25
"""Between two edges of a quantity that is heard by its ratio."""
EDGES: dict[str, Reals] = {
    "density": np.array([1.6 * RATIO**step for step in range(CONDITION_BINS - 1)]),
    "loudness": np.array([26.0 + 5 * step for step in range(CONDITION_BINS - 1)]),
    "register": np.array([50.0 + 2 * step for step in range(CONDITION_BINS - 1)]),
    "polyphony": np.array([RATIO**step for step in range(CONDITION_BINS - 1)]),
}
"""(K - 1,) where one bin ends and the next begins, in notes per second, MIDI velocity, MIDI pitch
and notes. The middle is near the median of MAESTRO's blocks."""


@dataclass(frozen=True, eq=False)
class ConditionTables:
    """What each id adds to the measures.

    Attributes:
        names: the conditions of a model, in the order of its own.
        vocabulary: what the ids mean.
        bars: (V,) bar lines.
        sums: (V, 4) notes, and the sums of their velocities, pitches and durations in positions.
    """

    names: tuple[str, ...]
    vocabulary: Vocabulary
    bars: Bins
    sums: Bins

    @classmethod
    def of(cls, vocabulary: Vocabulary, names: Sequence[str]) -> ConditionTables:
        """The tables of a vocabulary; a learned token counts as its parts together."""
        base = np.zeros((len(vocabulary.base), 5), np.int64)
        base[vocabulary.span("Bar"), 0] = 1
        pitch = vocabulary.span("Pitch")
        base[pitch, 1] = 1
        base[vocabulary.span("Velocity"), 2] = vocabulary.velocities
        base[pitch, 3] = np.arange(len(pitch)) + vocabulary.pitch_range[0]
        base[vocabulary.span("Duration"), 4] = vocabulary.durations
        whole = np.array([base[list(piece)].sum(0) for piece in vocabulary.pieces])
        return cls(tuple(names), vocabulary, whole[:, 0], whole[:, 1:])

    def blocks(self, ids: npt.ArrayLike) -> Bins:
        """(T,) which block each position stands in."""
        bar = np.cumsum(self.bars[np.asarray(ids, np.int64)])
        return np.asarray(np.maximum(bar - 1, 0) // BLOCK_BARS, np.int64)

    def of_blocks(self, ids: npt.ArrayLike) -> Bins:
        """(T, F) the bins of each position's block."""
        index = np.asarray(ids, np.int64)
        bar, block = np.cumsum(self.bars[index]), self.blocks(index)
        whole = int(bar[-1]) - (self.vocabulary.eos_id not in index)
        sums = np.zeros((int(block[-1]) + 1, self.sums.shape[1]), np.int64)
        counted = (bar >= 1) & (bar <= whole)
        np.add.at(sums, block[counted], self.sums[index[counted]])
        bars = np.clip(whole - BLOCK_BARS * np.arange(len(sums)), 0, BLOCK_BARS)
        bins = self.bins(sums, bars * self.vocabulary.positions_per_bar)
        return np.where(bars[:, None] < LEAST_BARS, NOT_TOLD, bins)[block]

    def bin_of(self, name: str, value: float) -> int:
        """The bin that a value lies in, from 1."""
        return 1 + int(np.searchsorted(EDGES[name], value, side="right"))

    def bins(self, sums: Bins, positions: Bins) -> Bins:
        """(N, F) the bins of N stretches of music, by their sums (N, 4) and lengths (N,) in positions."""
        values = measured(sums, positions, self.vocabulary)
        columns = [
            np.where(
                np.isnan(values[name]), NOT_TOLD, 1 + np.searchsorted(EDGES[name], values[name], side="right")
            )
            for name in self.names
        ]
        return np.stack(columns, axis=-1).astype(np.int64)


def measured(sums: Bins, positions: Bins, vocabulary: Vocabulary) -> dict[str, Reals]:
    """Each measure of N stretches of music, by their sums (N, 4) and lengths (N,); NaN for none."""
    notes, velocities, pitches, held = np.asarray(sums, np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (
            notes * vocabulary.positions_per_second / positions,
            velocities / notes,
            pitches / notes,
            held / positions,
        )
    return dict(zip(CONDITIONS, found, strict=True))
