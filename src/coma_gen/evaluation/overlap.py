"""Samples held against real music, measure by measure, beside the noise floor: real against real.

The floor is drawn, not assumed. Again and again as many excerpts as there are samples are drawn from train
and from test, and held against each other exactly as samples are against each of them. Samples whose overlap
lies within what real music reaches are, in this measure and at this number, not to be told from real music;
below it, they are. At most half of the excerpts are drawn at a time (and no more samples), or the draws would
all be the same, and the floor would know no luck.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coma_gen.core.seeding import generator
from coma_gen.evaluation.kde import Floats, between, overlap_and_divergence, within

DRAWS = 40
LOW, HIGH = 5.0, 95.0
"""Percentiles of the floor: one real set in twenty overlaps less than the low one."""
Measured = Mapping[str, Floats]
"""Measure -> its values, one a piece."""
Figures = dict[str, dict[str, float]]
Pairs = list[tuple[float, float]]
"""(overlap, divergence) of each draw."""


def set_size(samples: int, train: int, test: int) -> int:
    """How many pieces of each set are held against each other at a time; 0 where there are too few."""
    if min(samples, train, test) < 2:
        return 0
    return min(samples, max(2, train // 2), max(2, test // 2))


def compare_sets(samples: Measured, train: Measured, test: Measured, *, seed: int) -> dict[str, Figures]:
    """Holds samples against excerpts of train and test.

    Args:
        samples: values (N,) of N samples.
        train: values of the excerpts of train.
        test: those of test.
        seed: of the draws.

    Returns:
        Measure -> `mean` of samples, train and test; and, where at least two of each can be drawn, `overlap`
        with_train and with_test (means over the draws), of_real and of_real_low (of train and test with each
        other: mean and 5th percentile); and `divergence` from_train, from_test, of_real and of_real_high
        (95th percentile), in nats.
    """
    found = {}
    for name in samples:
        sets = {"samples": samples[name], "train": train[name], "test": test[name]}
        found[name] = {"mean": {key: float(values.mean()) for key, values in sets.items() if len(values)}}
        number = set_size(*map(len, sets.values()))
        if number:
            found[name] |= hold(samples[name], train[name], test[name], number=number, seed=seed)
    return found


def hold(samples: Floats, train: Floats, test: Floats, *, number: int, seed: int) -> Figures:
    """The overlaps and divergences of one measure, over sets of `number` values."""
    with_train: Pairs = []
    with_test: Pairs = []
    of_real: Pairs = []
    for draw in range(DRAWS):
        source = generator(seed, "comparison", draw)
        made, ours, theirs = (
            values[np.sort(source.choice(len(values), number, replace=False))]
            for values in (samples, train, test)
        )
        with_train.append(overlap_and_divergence(within(ours), between(ours, made)))
        with_test.append(overlap_and_divergence(within(theirs), between(theirs, made)))
        across = between(ours, theirs)
        of_real += [overlap_and_divergence(within(real), across) for real in (ours, theirs)]
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
