"""The learning-rate schedule against hand-computed values."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coma_gen.training.schedule import SCHEDULES, learning_rate_factor


def shares(trainer: ModuleType, **settings: object) -> list[float]:
    params = trainer.make_params(**settings)
    return [learning_rate_factor(step, params) for step in range(1, params.steps + 1)]


def test_cosine_by_hand(trainer: ModuleType) -> None:
    # A quarter of the peak a step; then 0.25 + 0.75 (1 + cos(pi k / 6)) / 2, k = 1 to 6.
    expected = [0.25, 0.5, 0.75, 1.0, 0.9497595, 0.8125, 0.625, 0.4375, 0.3002405, 0.25]
    given_shares = shares(trainer, schedule="cosine", steps=10, warmup_steps=4, min_learning_rate_ratio=0.25)
    assert given_shares == pytest.approx(expected, abs=1e-7)


def test_line_by_hand(trainer: ModuleType) -> None:
    expected = [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    given_shares = shares(trainer, schedule="linear", steps=6, warmup_steps=2, min_learning_rate_ratio=0.0)
    assert given_shares == pytest.approx(expected)


def test_plateau_by_hand(trainer: ModuleType) -> None:
    # Half of the 8 steps after the warm-up decay.
    settings = {"steps": 10, "warmup_steps": 2, "decay_fraction": 0.5, "min_learning_rate_ratio": 0.2}
    expected = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert shares(trainer, schedule="linear", **settings) == pytest.approx(expected)


def test_without_warm_up(trainer: ModuleType) -> None:
    settings = {"schedule": "cosine", "steps": 2, "warmup_steps": 0, "min_learning_rate_ratio": 0.0}
    assert shares(trainer, **settings) == pytest.approx([0.5, 0.0])


@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    steps=st.integers(1, 500),
    warmup=st.integers(0, 499),
    ratio=st.floats(0, 1),
    fraction=st.floats(1e-3, 1),
)
def test_bounds_and_shape(
    trainer: ModuleType, schedule: str, steps: int, warmup: int, ratio: float, fraction: float
) -> None:
    warmup = min(warmup, steps - 1)
    all_shares = shares(
        trainer,
        schedule=schedule,
        steps=steps,
        warmup_steps=warmup,
        min_learning_rate_ratio=ratio,
        decay_fraction=fraction,
    )
    assert all(0 <= share <= 1 + 1e-9 for share in all_shares)
    rising, falling = all_shares[:warmup], all_shares[max(0, warmup - 1) :]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    assert all_shares[-1] == pytest.approx(ratio, abs=1e-9)
