"""Condition bins of training windows, with condition dropout.

A model that always sees its conditions comes to depend on them. A fraction of the windows is therefore
unconditioned, as in evaluation, and in the other windows each (block, condition) is dropped independently, so
that any subset of the conditions can be requested in generation. Like the windows, the bins are a function of
(seed, step, index in the batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coma_gen.core.seeding import generator
from coma_gen.shards.windows import IGNORE, Tokens
from coma_gen.tokenizer.conditions import NULL_BIN, ConditionTables
from coma_gen.tokenizer.vocabulary import Vocabulary

WINDOW_DROPOUT = 0.3
"""Fraction of the windows that are unconditioned."""
BIN_DROPOUT = 0.3
"""Fraction of the (block, condition) pairs that are dropped in the other windows."""


@dataclass(frozen=True)
class WindowConditions:
    """Draws the condition bins of training windows.

    Attributes:
        tables: Lookup tables of the windows' vocabulary and the model's conditions.
    """

    tables: ConditionTables

    @classmethod
    def load(cls, tokenizer: Path, names: Sequence[str]) -> WindowConditions | None:
        """Builds the tables from a tokenizer's folder; returns None for a model without conditions."""
        return cls(ConditionTables.from_vocabulary(Vocabulary.load(tokenizer), names)) if names else None

    def draw(self, input_ids: Tokens, targets: Tokens, *, seed: int, step: int, first: int = 0) -> Tokens:
        """Returns the condition bins (B, T, F) of windows that `draw_windows` returned.

        Args:
            input_ids: (B, T) inputs after augmentation; the bins describe the transposed window.
            targets: (B, T) targets; the last one may be EOS.
            seed: Seed of the run.
            step: Optimizer step.
            first: Index of the first window in the step's batch.
        """
        pad_id = self.tables.vocabulary.pad_id
        windows = np.concatenate([input_ids[:, :1], np.where(targets == IGNORE, pad_id, targets)], axis=1)
        conditions = np.stack([self.tables.compute_bins(window)[:-1] for window in windows])
        for row, bins in enumerate(conditions):
            rng = generator(seed, "condition", step, first + row)
            if rng.random() < WINDOW_DROPOUT:
                bins[:] = NULL_BIN
                continue
            block = self.tables.index_blocks(windows[row])[:-1]
            dropped = rng.random((int(block[-1]) + 1, bins.shape[1])) < BIN_DROPOUT
            bins[dropped[block]] = NULL_BIN
        return conditions
