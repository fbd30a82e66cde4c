"""Confidence interval of the difference between two models scored on the same music, by a paired bootstrap.

Compositions differ far more from each other than two models do. Each draw therefore uses the same
compositions and the same training seeds for both models (Efron 1979): whole compositions and whole seeds are
resampled with replacement, independently of each other, and the difference is taken within the draw. The
interval thus covers the variance over music and over seeds. With S seeds it has only (S - 1) / S of the
variance over seeds, so for three seeds it is somewhat too narrow.
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
    """Our model's value minus the other's.

    Attributes:
        mean: Mean over all compositions and seeds.
        low, high: 95% interval; None with fewer than two compositions or two seeds.
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
    """Computes sum(ours) / sum(denominators) - sum(theirs) / sum(denominators), averaged over seeds.

    Args:
        ours: (S, N), for example bits of each of N performances under S training seeds.
        theirs: (S, N) for the same performances and seeds.
        denominators: (N,), for example notes.
        groups: N labels; rows with one label are resampled together.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.
    """
    differences = ours - theirs
    num_seeds = len(differences)
    mean = float(differences.sum() / (num_seeds * denominators.sum()))
    labels = sorted({str(group) for group in groups})
    if min(len(labels), num_seeds) < 2:
        return Difference(mean, None, None)
    group_index = np.array([labels.index(str(group)) for group in groups])
    above = np.stack([np.bincount(group_index, weights=row, minlength=len(labels)) for row in differences])
    below = np.bincount(group_index, weights=denominators, minlength=len(labels))
    source = generator(seed, "paired bootstrap")
    works = source.integers(len(labels), size=(resamples, len(labels)))
    seeds = source.integers(num_seeds, size=(resamples, num_seeds))
    drawn = above[seeds[:, :, None], works[:, None, :]].sum(axis=(1, 2))
    ratios = drawn / (num_seeds * below[works].sum(axis=1))
    low, high = np.percentile(ratios, [LOW, HIGH])
    return Difference(mean, float(low), float(high))
