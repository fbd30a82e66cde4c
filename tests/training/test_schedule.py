"""The learning rate, against values worked out by hand."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coma_gen.training.schedule import learning_rate


def test_values_by_hand(trainer: ModuleType) -> None:
    params = trainer.make_params(steps=10, warmup_steps=4, learning_rate=0.8, min_learning_rate_ratio=0.25)
    # A quarter of the peak a step; then 0.2 + 0.6 (1 + cos(pi k / 6)) / 2, k = 1 to 6.
    expected = [0.2, 0.4, 0.6, 0.8, 0.7598076, 0.65, 0.5, 0.35, 0.2401924, 0.2]
    assert [learning_rate(step, params) for step in range(1, 11)] == pytest.approx(expected, abs=1e-7)


def test_without_warm_up(trainer: ModuleType) -> None:
    params = trainer.make_params(steps=2, warmup_steps=0, learning_rate=1.0, min_learning_rate_ratio=0.0)
    assert [learning_rate(step, params) for step in (1, 2)] == pytest.approx([0.5, 0.0])


@given(
    steps=st.integers(1, 2000),
    warmup=st.integers(0, 1999),
    peak=st.floats(1e-6, 10),
    ratio=st.floats(0, 1),
    data=st.data(),
)
def test_bounds_and_shape(
    trainer: ModuleType, steps: int, warmup: int, peak: float, ratio: float, data: st.DataObject
) -> None:
    warmup = min(warmup, steps - 1)
    params = trainer.make_params(
        steps=steps, warmup_steps=warmup, learning_rate=peak, min_learning_rate_ratio=ratio
    )
    step = data.draw(st.integers(1, steps))
    rate, slack = learning_rate(step, params), 1e-9 * peak
    assert 0 <= rate <= peak + slack
    if step > warmup:
        assert rate >= peak * ratio - slack
        assert step == steps or learning_rate(step + 1, params) <= rate + slack
    else:
        assert learning_rate(step + 1, params) >= rate or step == warmup
    assert learning_rate(steps, params) == pytest.approx(peak * ratio, abs=slack)
