"""Confidence of the difference of two models that were scored on the same music, by a paired bootstrap.

What one composition costs differs from another far more than two models do. Each draw therefore takes the
same compositions for both (Efron 1979), and the same training seeds: whole compositions and whole seeds are
drawn with replacement, independently of each other, and the difference is taken within the draw. So the
interval covers both kinds of luck: other music, and another seed. Three seeds are few to draw from: as far
as seeds go, the interval is rather too narrow (of S seeds, it has (S - 1) / S of the variance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.core.seeding import generator
from coma_gen.evaluation.bootstrap import HIGH, LOW

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Ours less theirs.

    Attributes:
        mean: over all compositions and seeds.
        low, high: the 95% interval; None with fewer than two compositions or two seeds.
    """

    mean: float
    low: float | None
    high: float | None


def paired_difference(
    ours: Floats,
    theirs: Floats,
    denominators: Floats,
    groups: Sequence[object],
    *,
    resamples: int,
    seed: int = 0,
) -> Difference:
    """The difference of sum(ours) / sum(denominators) and sum(theirs) / sum(denominators), means over seeds.

    Args:
        ours: (S, N), such as bits of each of N performances under S training seeds.
        theirs: (S, N) of the same performances and seeds.
        denominators: (N,) such as notes.
        groups: N labels; rows of one label are drawn together.
        resamples: how many draws.
        seed: of the draws.
    """
    apart = ours - theirs
    mean = float(apart.sum() / (len(apart) * denominators.sum()))
    labels = sorted({str(group) for group in groups})
    if min(len(labels), len(apart)) < 2:
        return Difference(mean, None, None)
    group_index = np.array([labels.index(str(group)) for group in groups])
    above = np.stack([np.bincount(group_index, weights=row, minlength=len(labels)) for row in apart])
    below = np.bincount(group_index, weights=denominators, minlength=len(labels))
    source = generator(seed, "paired bootstrap")
    works = source.integers(len(labels), size=(resamples, len(labels)))
    seeds = source.integers(len(apart), size=(resamples, len(apart)))
    drawn = above[seeds[:, :, None], works[:, None, :]].sum(axis=(1, 2))
    ratios = drawn / (len(apart) * below[works].sum(axis=1))
    low, high = np.percentile(ratios, [LOW, HIGH])
    return Difference(mean, float(low), float(high))
