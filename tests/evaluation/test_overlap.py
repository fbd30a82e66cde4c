"""Overlap of samples with real music: within the noise floor for real music, below it for other music."""

from __future__ import annotations

import numpy as np
import pytest

from coma_gen.evaluation.kde import distances_between, distances_within, overlap_and_divergence
from coma_gen.evaluation.overlap import compare_measure, compare_sets, set_size


def drawn(seed: int, count: int, mean: float = 0.0, spread: float = 1.0) -> dict[str, np.ndarray]:
    return {"velocity": np.random.default_rng(seed).normal(mean, spread, count)}


def test_sets_that_are_taken_whole_by_hand() -> None:
    made, ours, theirs = (drawn(seed, 4)["velocity"] for seed in range(3))
    found = compare_measure(made, ours, theirs, number=4, seed=0)
    with_train = overlap_and_divergence(distances_within(ours), distances_between(ours, made))
    real = [
        overlap_and_divergence(distances_within(one), distances_between(ours, theirs))
        for one in (ours, theirs)
    ]
    assert found["overlap"]["with_train"] == pytest.approx(with_train[0])
    assert found["divergence"]["from_train"] == pytest.approx(with_train[1])
    assert found["overlap"]["of_real"] == pytest.approx((real[0][0] + real[1][0]) / 2)
    assert found["divergence"]["of_real"] == pytest.approx((real[0][1] + real[1][1]) / 2)


def test_more_of_the_same_is_not_told_from_real_and_other_music_is() -> None:
    train, test = drawn(1, 40), drawn(2, 40)
    alike = compare_sets(drawn(3, 12), train, test, seed=0)["velocity"]
    unlike = compare_sets(drawn(3, 12, mean=4.0), train, test, seed=0)["velocity"]
    same = compare_sets(drawn(3, 12, spread=0.01), train, test, seed=0)["velocity"]
    for split in ("with_train", "with_test"):
        assert alike["overlap"][split] > alike["overlap"]["of_real_low"]
        assert unlike["overlap"][split] < 0.5 * unlike["overlap"]["of_real_low"]
    assert unlike["divergence"]["from_test"] > unlike["divergence"]["of_real_high"]
    assert same["overlap"]["with_train"] < alike["overlap"]["with_train"], "samples that are all one"


def test_sets_leave_room_for_luck() -> None:
    assert set_size(4, 24, 11) == 4
    assert set_size(100, 100, 90) == 45
    assert set_size(5, 2, 3) == 2
    assert set_size(1, 9, 9) == set_size(9, 0, 9) == 0
    alike = compare_sets(drawn(3, 30), drawn(1, 30), drawn(2, 30), seed=0)["velocity"]
    assert alike["overlap"]["of_real_low"] < alike["overlap"]["of_real"] - 0.01


def test_fewer_samples_make_a_lower_floor() -> None:
    train, test = drawn(1, 60), drawn(2, 60)
    few, many = (compare_sets(drawn(3, count), train, test, seed=0)["velocity"] for count in (3, 30))
    assert few["overlap"]["of_real_low"] < many["overlap"]["of_real_low"]


def test_the_seed_decides_the_draws() -> None:
    sets = drawn(0, 5), drawn(1, 20), drawn(2, 20)
    assert compare_sets(*sets, seed=1) == compare_sets(*sets, seed=1) != compare_sets(*sets, seed=2)


@pytest.mark.parametrize("counts", [(1, 5, 5), (5, 1, 5), (0, 5, 5)])
def test_one_piece_has_means_only(counts: tuple[int, int, int]) -> None:
    found = compare_sets(*(drawn(seed, count) for seed, count in enumerate(counts)), seed=0)["velocity"]
    assert set(found) == {"mean"}
    assert set(found["mean"]) == {
        name for name, count in zip(("samples", "train", "test"), counts, strict=True) if count
    }
