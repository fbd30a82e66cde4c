"""What a training window's model is told of its bars: each block's own bins, some of them withheld.

A model that is always told learns to lean on it. So a share of all windows is told nothing, as evaluation
tells nothing, and of the others each block and condition is withheld by itself: any part may be asked for.
Like the windows, what is told is a function of (seed, step, index in the batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coma_gen.core.seeding import generator
from coma_gen.shards.windows import IGNORE, Tokens
from coma_gen.tokenizer.conditions import NOT_TOLD, ConditionTables
from coma_gen.tokenizer.vocabulary import Vocabulary

UNTOLD_WINDOWS = 0.3
"""Share of the windows that are told nothing."""
WITHHELD = 0.3
"""Share of the (block, condition) of the other windows that are not told."""


@dataclass(frozen=True)
class WindowConditions:
    """Tells of windows.

    Attributes:
        tables: of the vocabulary that the windows are of, and the model's conditions.
    """

    tables: ConditionTables

    @classmethod
    def load(cls, tokenizer: Path, names: Sequence[str]) -> WindowConditions | None:
        """Of a tokenizer's folder; None for a model that has no conditions."""
        return cls(ConditionTables.of(Vocabulary.load(tokenizer), names)) if names else None

    def draw(self, input_ids: Tokens, targets: Tokens, *, seed: int, step: int, first: int = 0) -> Tokens:
        """(B, T, F) the bins that windows (B, T), as `draw_windows` gives them, are told.

        Args:
            input_ids: after transposition and change of loudness: a window is told what it has become.
            targets: the last one may end the piece.
            seed: of the run.
            step: the optimizer step.
            first: index in the step's batch of the first of these windows.
        """
        pad_id = self.tables.vocabulary.pad_id
        windows = np.concatenate([input_ids[:, :1], np.where(targets == IGNORE, pad_id, targets)], axis=1)
        told = np.stack([self.tables.of_blocks(window)[:-1] for window in windows])
        for row, bins in enumerate(told):
            draw = generator(seed, "condition", step, first + row)
            if draw.random() < UNTOLD_WINDOWS:
                bins[:] = NOT_TOLD
                continue
            block = self.tables.blocks(windows[row])[:-1]
            withheld = draw.random((int(block[-1]) + 1, bins.shape[1])) < WITHHELD
            bins[withheld[block]] = NOT_TOLD
        return told
