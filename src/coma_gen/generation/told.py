"""What a model with conditions is told of a sequence: a prompt's own values, what new music is to have.

What is wanted stays the same over all of the new music. Where nothing is, the prompt is not described either:
the model goes on as evaluation scores it.

Shapes: P tokens of a prompt, F conditions of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coma_gen.config.schema import CONDITION_BINS
from coma_gen.generation.controls import Controls
from coma_gen.tokenizer.codec import times_of
from coma_gen.tokenizer.conditions import BLOCK_BARS, NULL_BIN, Bins, ConditionTables

WISH_BINS = 2
"""A wish of 1 asks for so many bins more than the prompt has: half as dense again, 10 velocities louder."""
MIDDLE = CONDITION_BINS // 2
"""What a wish without a prompt is counted from: near the median of MAESTRO."""


@dataclass(frozen=True, eq=False)
class Told:
    """The bins that a sequence is told.

    Attributes:
        of_prompt: (P, F) of the tokens given.
        wanted: (F,) of each new one.
    """

    of_prompt: Bins
    wanted: Bins

    @classmethod
    def of(
        cls, controls: Controls, tables: ConditionTables, read: Sequence[int], spelled: Sequence[int]
    ) -> Told:
        """What is told behind a prompt.

        Args:
            controls: what is wished for.
            tables: of the model's conditions.
            read: the prompt's tokens, BOS first.
            spelled: base tokens that it goes on with.
        """
        base = np.concatenate([tables.vocabulary.expanded(read), np.asarray(spelled, np.uint16)])
        wanted = wanted_bins(controls, tables, bins_at_end(tables, base))
        of_prompt = tables.compute_bins(read)
        return cls(of_prompt if wanted.any() else np.zeros_like(of_prompt), wanted)

    def tail(self, count: int, new: int) -> Bins:
        """(T, F) of the last `count` tokens of the prompt and `new` ones behind it."""
        newest = np.tile(self.wanted, (min(count, new), 1))
        missing = count - len(newest)
        return np.concatenate([self.of_prompt[-missing:], newest]) if missing else newest


def bins_at_end(tables: ConditionTables, base: Sequence[int] | Bins) -> Bins:
    """(F,) the bins of the last bars of a prompt, a block at most, up to its last onset.

    Args:
        tables: of the model's conditions.
        base: the prompt's base ids.

    Returns:
        Nothing told where the onsets span less than a bar. The notes of the first onset count as what was
        before the span: so an even pulse has one density, whatever its length.
    """
    ids, bar = np.asarray(base, np.int64), tables.vocabulary.positions_per_bar
    onsets = times_of(ids, tables.vocabulary)
    struck = onsets[tables.sums[ids, 0] > 0]
    first, last = (int(struck[0]), int(struck[-1])) if len(struck) else (0, 0)
    since = max(first, last - BLOCK_BARS * bar)
    if last - since < bar:
        return np.full(len(tables.names), NULL_BIN, np.int64)
    sums = tables.sums[ids[onsets > since]].sum(0)
    bins: Bins = tables.quantize_sums(sums[None], np.array([last - since]))[0]
    return bins


def wanted_bins(controls: Controls, tables: ConditionTables, followed: Bins) -> Bins:
    """(F,) what new music is told: a target, or the prompt's bins (F,), moved by what is wished for."""
    bins: Bins = followed.copy() if controls.follow else np.full_like(followed, NULL_BIN)
    targets = controls.targets
    for column, name in enumerate(tables.names):
        if name in targets:
            bins[column] = tables.find_bin(name, targets[name])
        elif wish := float(getattr(controls, name)):
            moved = (int(followed[column]) or MIDDLE) + round(WISH_BINS * wish)
            bins[column] = min(max(moved, 1), CONDITION_BINS)
    return bins
