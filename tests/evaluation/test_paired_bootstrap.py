"""The paired difference of two models against hand-computed values; resampling of compositions and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from coma_gen.evaluation.paired_bootstrap import paired_difference


def test_by_hand() -> None:
    """Two compositions of 1 and 3 notes; 2 and 6 bits more: whatever is drawn, 2 bits a note."""
    theirs = np.array([[10.0, 30.0], [11.0, 33.0]])
    ours = theirs + np.array([2.0, 6.0])
    found = paired_difference(ours, theirs, np.array([1.0, 3.0]), ["a", "b"], resamples=500)
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_all_draws_of_two_compositions_by_hand() -> None:
    """+1 bit on one note, +0 on another: the draws are 0, 1/2 and 1, each end a quarter of them."""
    ours = np.array([[1.0, 0.0], [1.0, 0.0]])
    found = paired_difference(ours, np.zeros((2, 2)), np.ones(2), "ab", resamples=2000)
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_seeds_are_drawn_too() -> None:
    """One seed is better by 1, the other worse: no composition differs, and yet nothing is certain."""
    ours = np.array([[1.0, 1.0], [-1.0, -1.0]])
    found = paired_difference(ours, np.zeros((2, 2)), np.ones(2), "ab", resamples=2000)
    assert (found.mean, found.low, found.high) == (0.0, -1.0, 1.0)


def test_what_both_share_does_not_count() -> None:
    """Compositions differ by tens of bits, the models by a tenth: the interval is that of the tenth."""
    source = np.random.default_rng(0)
    theirs = source.normal(20, 10, (3, 200))
    apart = source.normal(0.1, 0.2, (3, 200))
    found = paired_difference(theirs + apart, theirs, np.ones(200), range(200), resamples=4000)
    assert found.mean == pytest.approx(apart.mean())
    assert found.low is not None and found.high is not None
    assert found.high - found.low < 0.15
    assert found.low < 0.1 < found.high


def test_copies_within_a_composition_add_no_confidence() -> None:
    apart = np.random.default_rng(1).normal(0, 1, (3, 20))
    single = paired_difference(apart, np.zeros_like(apart), np.ones(20), range(20), resamples=1000)
    ten = np.repeat(apart, 10, axis=1)
    groups = np.repeat(np.arange(20), 10)
    repeated = paired_difference(ten, np.zeros_like(ten), np.ones(200), groups, resamples=1000)
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))


@pytest.mark.parametrize(("seeds", "compositions"), [(3, "aa"), (1, "ab")])
def test_one_composition_or_one_seed_gives_no_interval(seeds: int, compositions: str) -> None:
    """One of a kind says nothing of how the others differ."""
    ours, theirs = np.ones((seeds, 2)), np.zeros((seeds, 2))
    found = paired_difference(ours, theirs, np.ones(2), compositions, resamples=100)
    assert (found.mean, found.low, found.high) == (1.0, None, None)
