"""Confidence interval of a ratio of sums by the cluster bootstrap (Efron 1979).

Performances of one composition are not independent, so whole compositions are resampled, not files. With
fewer than two compositions there is no interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.core.seeding import generator

LOW, HIGH = 2.5, 97.5


def ratio_interval(
    numerators: npt.NDArray[np.float64],
    denominators: npt.NDArray[np.float64],
    groups: Sequence[object],
    *,
    resamples: int,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Computes the 95% interval of sum(numerators) / sum(denominators), resampling groups with replacement.

    Args:
        numerators: (N,) for example bits of each performance.
        denominators: (N,) for example notes of each performance.
        groups: N labels; rows with one label are resampled together.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        (low, high), or None with fewer than two groups.
    """
    labels = sorted({str(group) for group in groups})
    if len(labels) < 2:
        return None
    group_index = np.array([labels.index(str(group)) for group in groups])
    above = np.bincount(group_index, weights=numerators, minlength=len(labels))
    below = np.bincount(group_index, weights=denominators, minlength=len(labels))
    drawn = generator(seed, "bootstrap").integers(len(labels), size=(resamples, len(labels)))
    ratios = above[drawn].sum(axis=1) / below[drawn].sum(axis=1)
    low, high = np.percentile(ratios, [LOW, HIGH])
    return float(low), float(high)
