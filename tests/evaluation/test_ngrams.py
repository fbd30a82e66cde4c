"""N-gram baselines against manual counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coma_gen.evaluation.ngrams import bigram, uniform, unigram

TRAIN = [np.array([0, 1, 2, 1], np.uint16), np.array([0, 1], np.uint16)]
PIECE = np.array([0, 1, 2, 3], np.uint16)


def test_uniform_costs_log_v_for_every_token_but_the_given_first() -> None:
    np.testing.assert_allclose(uniform(4)([PIECE])[0], [0, *[np.log(4)] * 3])


def test_unigram_by_hand() -> None:
    # after the first of each piece: 1, 2, 1, 1 -> counts [0, 3, 1, 0], 0.5 added: [0.5, 3.5, 1.5, 0.5] of 6
    np.testing.assert_allclose(
        np.exp(-unigram(TRAIN, 4, add=0.5)([PIECE])[0][1:]), [3.5 / 6, 1.5 / 6, 0.5 / 6]
    )


def test_bigram_by_hand() -> None:
    # pairs 0-1 twice, 1-2 and 2-1 once; prior of 2 pseudo-counts over the unigram of the test above
    share = np.array([0.5, 3.5, 1.5, 0.5]) / 6
    expected = [(2 + 2 * share[1]) / (2 + 2), (1 + 2 * share[2]) / (1 + 2), (0 + 2 * share[3]) / (1 + 2)]
    np.testing.assert_allclose(np.exp(-bigram(TRAIN, 4, add=0.5, prior=2.0)([PIECE])[0][1:]), expected)


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=12), min_size=1, max_size=4), st.integers(0, 4)
)
def test_probabilities_of_all_continuations_sum_to_one(pieces: list[list[int]], before: int) -> None:
    train = [np.array(piece, np.uint16) for piece in pieces]
    ends = [np.array([before, token], np.uint16) for token in range(5)]
    for scorer in (uniform(5), unigram(train, 5, add=0.1), bigram(train, 5, add=0.1, prior=3.0)):
        assert sum(np.exp(-nats[1]) for nats in scorer(ends)) == pytest.approx(1)


def test_a_large_vocabulary_needs_no_table_of_all_pairs() -> None:
    scorer = bigram(TRAIN, 60_000, add=0.1, prior=1.0)
    assert np.isfinite(scorer([np.array([59_999, 5, 59_998], np.uint16)])[0]).all()
