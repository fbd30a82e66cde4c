"""Condition bins: coarse descriptions of the next bars, computed from token ids, that condition a model.

    density     notes per second
    loudness    mean velocity of the notes
    register    mean pitch of the notes
    polyphony   mean number of sounding notes: the sum of their durations / seconds

A block has `BLOCK_BARS` bars, counted from the first bar line of a sequence (a piece, a training window or a
prompt). Every position of a block carries the bins of the whole block, so the first tokens of a block already
describe the music that follows.

    window   .. note note | Bar ... | Bar ... | Bar ... | Bar ... | Bar ... | Bar ... | Bar ..
    block    0            | 0       | 0       | 0       | 0       | 1       | 1       | 1
    counted                 x         x         x         x         x         x

Tokens before the first bar line belong to block 0. Only complete bars are counted: those that end with
another bar line or with EOS. A block with fewer than `MIN_BARS` complete bars gets the null bin; so do
loudness and register of a block without notes.

Shapes: T tokens, V vocabulary size, F conditions of a model, K bins of a condition, N blocks.
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
"""Bars of a block; a bar lasts 2 s, so a block lasts 8 s."""
MIN_BARS = 2
"""Complete bars that a block needs: one bar is too short to estimate a density from."""
NULL_BIN = 0
"""Bin of an unspecified condition; the bins of values are 1 ... K."""
BIN_RATIO = 1.25
"""Ratio of neighboring edges of density and polyphony, whose bins are spaced logarithmically."""
EDGES: dict[str, Reals] = {
    "density": np.array([1.6 * BIN_RATIO**step for step in range(CONDITION_BINS - 1)]),
    "loudness": np.array([26.0 + 5 * step for step in range(CONDITION_BINS - 1)]),
    "register": np.array([50.0 + 2 * step for step in range(CONDITION_BINS - 1)]),
    "polyphony": np.array([BIN_RATIO**step for step in range(CONDITION_BINS - 1)]),
}
"""(K - 1,) edges between bins, in notes per second, MIDI velocity, MIDI pitch and number of notes.
The middle bins lie near the median of MAESTRO's blocks.
"""


@dataclass(frozen=True, eq=False)
class ConditionTables:
    """Per-token lookup tables from which the condition bins are computed.

    Attributes:
        names: Conditions of the model, in the order of its embeddings.
        vocabulary: Vocabulary of the token ids.
        bars: (V,) number of bar lines in each token.
        sums: (V, 4) number of notes in each token, and the sums of their velocities, pitches and durations
            (in grid positions).
    """

    names: tuple[str, ...]
    vocabulary: Vocabulary
    bars: Bins
    sums: Bins

    @classmethod
    def from_vocabulary(cls, vocabulary: Vocabulary, names: Sequence[str]) -> ConditionTables:
        """Builds the tables; a BPE token has the sums of its base tokens."""
        base = np.zeros((len(vocabulary.base), 5), np.int64)
        base[vocabulary.span("Bar"), 0] = 1
        pitch = vocabulary.span("Pitch")
        base[pitch, 1] = 1
        base[vocabulary.span("Velocity"), 2] = vocabulary.velocities
        base[pitch, 3] = np.arange(len(pitch)) + vocabulary.pitch_range[0]
        base[vocabulary.span("Duration"), 4] = vocabulary.durations
        whole = np.array([base[list(piece)].sum(0) for piece in vocabulary.pieces])
        return cls(tuple(names), vocabulary, whole[:, 0], whole[:, 1:])

    def index_blocks(self, ids: npt.ArrayLike) -> Bins:
        """Returns the block index of each position, (T,)."""
        bar = np.cumsum(self.bars[np.asarray(ids, np.int64)])
        return np.asarray(np.maximum(bar - 1, 0) // BLOCK_BARS, np.int64)

    def compute_bins(self, ids: npt.ArrayLike) -> Bins:
        """Returns the bins of each position's block, (T, F)."""
        index = np.asarray(ids, np.int64)
        bar, block = np.cumsum(self.bars[index]), self.index_blocks(index)
        complete = int(bar[-1]) - (self.vocabulary.eos_id not in index)
        sums = np.zeros((int(block[-1]) + 1, self.sums.shape[1]), np.int64)
        counted = (bar >= 1) & (bar <= complete)
        np.add.at(sums, block[counted], self.sums[index[counted]])
        bars = np.clip(complete - BLOCK_BARS * np.arange(len(sums)), 0, BLOCK_BARS)
        bins = self.quantize_sums(sums, bars * self.vocabulary.positions_per_bar)
        return np.where(bars[:, None] < MIN_BARS, NULL_BIN, bins)[block]

    def find_bin(self, name: str, value: float) -> int:
        """Returns the bin of a value of one condition, from 1."""
        return 1 + int(np.searchsorted(EDGES[name], value, side="right"))

    def quantize_sums(self, sums: Bins, positions: Bins) -> Bins:
        """Returns the bins (N, F) of N blocks from their sums (N, 4) and lengths (N,) in grid positions."""
        values = compute_values(sums, positions, self.vocabulary)
        columns = [
            np.where(
                np.isnan(values[name]), NULL_BIN, 1 + np.searchsorted(EDGES[name], values[name], side="right")
            )
            for name in self.names
        ]
        return np.stack(columns, axis=-1).astype(np.int64)


def compute_values(sums: Bins, positions: Bins, vocabulary: Vocabulary) -> dict[str, Reals]:
    """Returns each condition's values (N,) from sums (N, 4) and lengths (N,) of blocks; NaN if undefined."""
    notes, velocities, pitches, durations = np.asarray(sums, np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (
            notes * vocabulary.positions_per_second / positions,
            velocities / notes,
            pitches / notes,
            durations / positions,
        )
    return dict(zip(CONDITIONS, values, strict=True))
