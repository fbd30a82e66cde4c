"""Condition bins for generation: measured from the prompt, or requested for the new music.

All new tokens have the same bins. Where all of these are null (nothing is requested, and the prompt is not
followed or too short to measure), the prompt's bins are null too: the model continues unconditioned, as
evaluation scores it.

Shapes: P prompt tokens, F conditions of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coma_gen.config.schema import CONDITION_BINS
from coma_gen.generation.controls import Controls
from coma_gen.tokenizer.codec import times_of
from coma_gen.tokenizer.conditions import BLOCK_BARS, NULL_BIN, Bins, ConditionTables

BINS_PER_UNIT = 2
"""Bins by which a control of 1 shifts a condition: half as dense again, or 10 velocities louder."""
MIDDLE_BIN = CONDITION_BINS // 2
"""The bin that a control shifts when there is no prompt: near the median of MAESTRO."""


@dataclass(frozen=True, eq=False)
class ConditionSequence:
    """Condition bins for a prompt and its continuation.

    Attributes:
        prompt_bins: (P, F) bins of the prompt's tokens.
        target_bins: (F,) bins of each generated token.
    """

    prompt_bins: Bins
    target_bins: Bins

    @classmethod
    def from_prompt(
        cls, controls: Controls, tables: ConditionTables, prompt_ids: Sequence[int], prefix: Sequence[int]
    ) -> ConditionSequence:
        """Computes the bins of a prompt and of the music that continues it.

        Args:
            controls: Requested properties of the new music.
            tables: Tables of the model's conditions.
            prompt_ids: Prompt tokens, BOS first.
            prefix: Base tokens at the end of the prompt that generation must reproduce first.
        """
        base = np.concatenate([tables.vocabulary.expanded(prompt_ids), np.asarray(prefix, np.uint16)])
        target_bins = compute_target_bins(controls, tables, compute_prompt_bins(tables, base))
        prompt_bins = tables.compute_bins(prompt_ids)
        return cls(prompt_bins if target_bins.any() else np.zeros_like(prompt_bins), target_bins)

    def tail(self, count: int, num_new: int) -> Bins:
        """Returns the bins (T, F) of the last `count` tokens of the prompt and `num_new` generated tokens."""
        newest = np.tile(self.target_bins, (min(count, num_new), 1))
        missing = count - len(newest)
        return np.concatenate([self.prompt_bins[-missing:], newest]) if missing else newest


def compute_prompt_bins(tables: ConditionTables, base: Sequence[int] | Bins) -> Bins:
    """Measures the last bars of a prompt, at most one block, up to its last onset.

    Args:
        tables: Tables of the model's conditions.
        base: Base ids of the prompt.

    Returns:
        (F,) bins, all `NULL_BIN` where the onsets span less than a bar. The notes of the first onset are not
        counted, so that a steady pulse has the same density at any length.
    """
    ids, bar = np.asarray(base, np.int64), tables.vocabulary.positions_per_bar
    positions = times_of(ids, tables.vocabulary)
    onsets = positions[tables.sums[ids, 0] > 0]
    first, last = (int(onsets[0]), int(onsets[-1])) if len(onsets) else (0, 0)
    start = max(first, last - BLOCK_BARS * bar)
    if last - start < bar:
        return np.full(len(tables.names), NULL_BIN, np.int64)
    sums = tables.sums[ids[positions > start]].sum(0)
    bins: Bins = tables.quantize_sums(sums[None], np.array([last - start]))[0]
    return bins


def compute_target_bins(controls: Controls, tables: ConditionTables, prompt_bins: Bins) -> Bins:
    """Returns the bins (F,) of the new music: a target, or the prompt's bins (F,) shifted by the controls."""
    bins: Bins = prompt_bins.copy() if controls.follow else np.full_like(prompt_bins, NULL_BIN)
    targets = controls.targets
    for column, name in enumerate(tables.names):
        if name in targets:
            bins[column] = tables.find_bin(name, targets[name])
        elif strength := float(getattr(controls, name)):
            shifted = (int(prompt_bins[column]) or MIDDLE_BIN) + round(BINS_PER_UNIT * strength)
            bins[column] = min(max(shifted, 1), CONDITION_BINS)
    return bins
