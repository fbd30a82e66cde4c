"""Compares samples with real music, measure by measure, beside the noise floor of real against real music.

The noise floor is estimated by resampling: in each of many draws, as many excerpts as samples are drawn from
train and from test and compared with each other exactly as the samples are compared with each. A sample score
below the 5th percentile of real-vs-real is distinguishable from real music in this measure and at this sample
size. A draw takes at most half of the excerpts (and as many samples); otherwise all draws would be equal and
the floor would have no variance.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coma_gen.core.seeding import generator
from coma_gen.evaluation.kde import Floats, distances_between, distances_within, overlap_and_divergence

DRAWS = 40
LOW, HIGH = 5.0, 95.0
"""Percentiles of the noise floor."""
Measured = Mapping[str, Floats]
"""Measure -> values, one per piece."""
Figures = dict[str, dict[str, float]]
Pairs = list[tuple[float, float]]
"""(overlap, divergence) of each draw."""


def set_size(samples: int, train: int, test: int) -> int:
    """Returns the number of pieces of each set per draw; 0 where there are too few."""
    if min(samples, train, test) < 2:
        return 0
    return min(samples, max(2, train // 2), max(2, test // 2))


def compare_sets(samples: Measured, train: Measured, test: Measured, *, seed: int) -> dict[str, Figures]:
    """Compares samples with excerpts of train and test.

    Args:
        samples: Values (N,) of N samples.
        train: Values of the excerpts of train.
        test: Values of the excerpts of test.
        seed: Seed of the draws.

    Returns:
        Measure -> `mean` of samples, train and test; and, where at least two of each can be drawn, `overlap`
        with_train and with_test (means over the draws), of_real and of_real_low (train against test: mean and
        5th percentile); and `divergence` from_train, from_test, of_real and of_real_high (95th percentile),
        in nats.
    """
    found = {}
    for name in samples:
        sets = {"samples": samples[name], "train": train[name], "test": test[name]}
        found[name] = {"mean": {key: float(values.mean()) for key, values in sets.items() if len(values)}}
        number = set_size(*map(len, sets.values()))
        if number:
            found[name] |= compare_measure(samples[name], train[name], test[name], number=number, seed=seed)
    return found


def compare_measure(samples: Floats, train: Floats, test: Floats, *, number: int, seed: int) -> Figures:
    """Computes the overlaps and divergences of one measure for sets of `number` values."""
    with_train: Pairs = []
    with_test: Pairs = []
    of_real: Pairs = []
    for draw in range(DRAWS):
        source = generator(seed, "comparison", draw)
        made, ours, theirs = (
            values[np.sort(source.choice(len(values), number, replace=False))]
            for values in (samples, train, test)
        )
        with_train.append(overlap_and_divergence(distances_within(ours), distances_between(ours, made)))
        with_test.append(overlap_and_divergence(distances_within(theirs), distances_between(theirs, made)))
        across = distances_between(ours, theirs)
        of_real += [overlap_and_divergence(distances_within(real), across) for real in (ours, theirs)]
    overlaps, divergences = (
        [np.array(pairs)[:, part] for pairs in (with_train, with_test, of_real)] for part in (0, 1)
    )
    from_train, from_test, between_real = (float(values.mean()) for values in divergences)
    near_train, near_test, near_real = (float(values.mean()) for values in overlaps)
    return {
        "overlap": {
            "with_train": near_train,
            "with_test": near_test,
            "of_real": near_real,
            "of_real_low": float(np.percentile(overlaps[2], LOW)),
        },
        "divergence": {
            "from_train": from_train,
            "from_test": from_test,
            "of_real": between_real,
            "of_real_high": float(np.percentile(divergences[2], HIGH)),
        },
    }
