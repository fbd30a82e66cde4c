"""Overlap and divergence against known integrals, and against scipy's densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coma_gen.evaluation.kde import (
    SMALLEST,
    density,
    distances_between,
    distances_within,
    kernel_width,
    overlap_and_divergence,
)

families = arrays(np.float64, st.integers(1, 12), elements=st.floats(0, 1e4))


def test_distances_by_hand() -> None:
    values = np.array([1.0, 4.0, 6.0])
    assert distances_within(values).tolist() == [3, 5, 2]
    assert distances_between(values, np.array([0.0, 5.0])).tolist() == [1, 4, 4, 1, 6, 1]


def test_two_points_by_hand() -> None:
    # One kernel each, of Scott's width; far apart they share nothing.
    close, far = np.array([1.0, 2.0]), np.array([101.0, 102.0])
    assert kernel_width(close) == pytest.approx(math.sqrt(0.5) * 2**-0.2)
    overlap, divergence = overlap_and_divergence(close, far)
    assert overlap == pytest.approx(0, abs=1e-3)
    assert 10 < divergence <= -math.log(SMALLEST)


def test_normal_densities_overlap_as_the_theory_says() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(10, 1, 3000), draw.normal(11, 1, 3000)
    overlap, divergence = overlap_and_divergence(one, other)
    # two normals one deviation apart share 2 Phi(-1/2), and diverge by 1/2; where points end, so do kernels
    assert overlap == pytest.approx(math.erfc(0.5 / math.sqrt(2)), abs=0.03)
    assert divergence == pytest.approx(0.5, rel=0.25)


@settings(max_examples=60)
@given(families, families)
def test_bounds_and_identity(one: np.ndarray, other: np.ndarray) -> None:
    overlap, divergence = overlap_and_divergence(one, other)
    assert 0 <= overlap <= 1 + 1e-9
    assert 0 <= divergence <= 1 - math.log(SMALLEST)
    assert overlap == pytest.approx(overlap_and_divergence(other, one)[0], abs=1e-6)
    assert overlap_and_divergence(one, one) == pytest.approx((1, 0), abs=1e-9)


def test_equal_distances_have_no_width_and_still_a_figure() -> None:
    assert overlap_and_divergence(np.zeros(3), np.zeros(4)) == (1.0, 0.0)
    assert overlap_and_divergence(np.full(3, 2.0), np.full(4, 2.0)) == pytest.approx((1, 0))
    assert overlap_and_divergence(np.full(3, 2.0), np.full(4, 3.0))[0] == pytest.approx(0, abs=1e-3)


def test_densities_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy, an oracle of densities, is not installed")
    points = np.random.default_rng(1).gamma(2.0, 3.0, 20)
    grid = np.linspace(-5, 40, 100)
    oracle = stats.gaussian_kde(points)
    assert kernel_width(points) == pytest.approx(float(np.sqrt(oracle.covariance[0, 0])))
    np.testing.assert_allclose(density(points, kernel_width(points), grid), oracle(grid), rtol=1e-9)
    other = points[:7] + 1.5
    fine = np.linspace(-40, 90, 20_001)
    p, q = oracle(fine), stats.gaussian_kde(other)(fine)
    overlap, divergence = overlap_and_divergence(points, other)
    assert overlap == pytest.approx(np.trapezoid(np.minimum(p, q), fine), abs=2e-3)
    p, q = (np.maximum(values, SMALLEST * max(p.max(), q.max())) for values in (p, q))
    assert divergence == pytest.approx(np.trapezoid(p * np.log(p / q), fine), rel=0.01)
