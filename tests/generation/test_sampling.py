"""Sampling filters keep what their papers define, never nothing, and draw by inverse CDF."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coma_gen.generation.sampling import SamplingParams, probabilities, sample_from
from coma_gen.tokenizer.vocabulary import Vocabulary

LOGITS = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
choices = st.builds(
    SamplingParams,
    temperature=st.one_of(st.just(0.0), st.floats(1e-3, 5)),
    top_k=st.one_of(st.none(), st.integers(1, 12)),
    top_p=st.one_of(st.none(), st.floats(1e-6, 1)),
    min_p=st.one_of(st.none(), st.floats(0, 1)),
)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (SamplingParams(), [0.4, 0.3, 0.2, 0.1]),
        (SamplingParams(temperature=0), [1, 0, 0, 0]),
        (SamplingParams(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (SamplingParams(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (SamplingParams(top_k=9), [0.4, 0.3, 0.2, 0.1]),
        (SamplingParams(top_p=0.7), [4 / 7, 3 / 7, 0, 0]),
        (SamplingParams(top_p=0.71), [4 / 9, 3 / 9, 2 / 9, 0]),
        (SamplingParams(top_p=1e-9), [1, 0, 0, 0]),
        (SamplingParams(top_p=1.0), [0.4, 0.3, 0.2, 0.1]),
        (SamplingParams(min_p=0.5), [4 / 9, 3 / 9, 2 / 9, 0]),
        (SamplingParams(min_p=1.0), [1, 0, 0, 0]),
        (SamplingParams(top_k=3, top_p=0.5), [4 / 7, 3 / 7, 0, 0]),
    ],
)
def test_hand_computed(sampling: SamplingParams, expected: list[float]) -> None:
    np.testing.assert_allclose(probabilities(LOGITS, None, sampling), expected, atol=1e-12)


WORDS = ["PAD_None", "Bar_None", "Position_0", "Position_9", "Pitch_60", "Pitch_64", "Pitch_67", "Duration_1"]


def test_truncation_acts_within_types_and_leaves_how_likely_each_is() -> None:
    vocabulary = Vocabulary(
        base=tuple(WORDS),
        pieces=(*((index,) for index in range(len(WORDS))), (4, 7)),
        positions_per_second=48,
        positions_per_bar=96,
        durations=(1,),
        velocities=(64,),
        pedal="extend",
    )
    logits = np.log([0.02, 0.03, 0.04, 0.16, 0.3, 0.2, 0.05, 0.1, 0.1])  # the last begins with a pitch
    sampling = SamplingParams(top_p=0.7, truncate=("position", "pitch"))
    parts = sampling.parts(vocabulary)
    assert [ids.tolist() for ids in parts] == [[2, 3], [4, 5, 6, 8]]
    # positions: 0.16 of 0.2 is enough; pitches: 0.3 of 0.65 is not, 0.5 is
    expected = [0.02, 0.03, 0, 0.2, 0.65 * 3 / 5, 0.65 * 2 / 5, 0, 0.1, 0]
    np.testing.assert_allclose(probabilities(logits, None, sampling, parts), expected, atol=1e-12)
    legal = np.array([True, True, False, False, False, False, True, True, True])
    only = probabilities(logits, legal, sampling, parts)  # no position may follow; 0.1 of 0.15 is not enough
    np.testing.assert_allclose(only, np.array([2, 3, 0, 0, 0, 0, 5, 10, 10]) / 30, atol=1e-12)
    untouched = probabilities(logits, None, sampling, SamplingParams(truncate=()).parts(vocabulary))
    np.testing.assert_allclose(untouched, np.exp(logits), atol=1e-12)


def test_forbidden_tokens_have_no_share_and_equals_go_to_the_lower_id() -> None:
    allowed = np.array([False, True, True, True])
    np.testing.assert_allclose(probabilities(LOGITS, allowed, SamplingParams()), [0, 1 / 2, 1 / 3, 1 / 6])
    np.testing.assert_allclose(probabilities(np.zeros(4), None, SamplingParams(top_k=2)), [0.5, 0.5, 0, 0])


@given(arrays(np.float64, 12, elements=st.floats(-50, 50)), choices, st.floats(0, 1, exclude_max=True))
def test_something_always_remains_and_what_is_drawn_is_of_it(
    logits: np.ndarray, sampling: SamplingParams, uniform: float
) -> None:
    probs = probabilities(logits, None, sampling)
    assert probs.sum() == pytest.approx(1)
    assert logits[probs > 0].max() == pytest.approx(logits.max(), abs=1e-12)  # closer ones weigh the same
    assert probs[sample_from(probs, uniform)] > 0


def test_draws_follow_the_cumulative_distribution() -> None:
    distribution = np.array([0.0, 0.25, 0.0, 0.75, 0.0])
    assert [sample_from(distribution, uniform) for uniform in (0.0, 0.2499, 0.25, 0.5, 1 - 1e-16)] == [
        1,
        1,
        3,
        3,
        3,
    ]


def test_ranges_are_named() -> None:
    assert SamplingParams().faults() == []
    wrong = SamplingParams(temperature=-1, top_k=0, top_p=0, min_p=2).faults()
    assert [fault.where for fault in wrong] == ["temperature", "top_k", "top_p", "min_p"]
    for types in (("pitches",), ("pitch", "pitch")):
        (fault,) = SamplingParams(truncate=types).faults()
        assert fault.where == "truncate" and "bar, position, pitch" in fault.rule
