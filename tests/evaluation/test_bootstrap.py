"""Bootstrap intervals: their width against normal theory, groups, seeds."""

from __future__ import annotations

import numpy as np
import pytest

from coma_gen.evaluation.bootstrap import ratio_interval


def test_fewer_than_two_groups_give_none() -> None:
    assert ratio_interval(np.ones(3), np.ones(3), ["a", "a", "a"], resamples=100) is None


def test_equal_ratios_have_no_spread() -> None:
    low, high = ratio_interval(
        np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]), "abc", resamples=200
    ) or (0, 0)
    assert low == pytest.approx(2) and high == pytest.approx(2)


def test_width_is_that_of_the_normal_theory_for_many_groups() -> None:
    values = np.random.default_rng(0).normal(20, 3, 400)
    low, high = ratio_interval(values, np.ones(400), range(400), resamples=4000) or (0, 0)
    expected = 2 * 1.96 * values.std() / np.sqrt(400)
    assert high - low == pytest.approx(expected, rel=0.08)
    assert low < values.mean() < high


def test_copies_within_a_group_add_no_confidence() -> None:
    values = np.random.default_rng(1).normal(20, 3, 30)
    single = ratio_interval(values, np.ones(30), range(30), resamples=2000)
    repeated = ratio_interval(
        np.repeat(values, 10), np.ones(300), np.repeat(np.arange(30), 10), resamples=2000
    )
    assert single is not None and repeated is not None
    assert repeated[1] - repeated[0] == pytest.approx(single[1] - single[0], rel=1e-6)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(10.0)
    assert ratio_interval(values, np.ones(10), range(10), resamples=100, seed=3) == ratio_interval(
        values, np.ones(10), range(10), resamples=100, seed=3
    )
