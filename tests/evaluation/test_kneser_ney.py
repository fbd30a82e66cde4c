"""Kneser-Ney against manual counts and a direct implementation of the formula with dictionaries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.evaluation.kneser_ney import KneserNey, discounts, kneser_ney
from coma_gen.evaluation.ngrams import bigram

Gram = tuple[int, ...]
BOS, EOS = 0, 1
VOCAB = 5


def piece(*ids: int) -> np.ndarray:
    return np.array([BOS, *ids, EOS], np.uint16)


bodies = st.lists(st.integers(2, VOCAB - 1), max_size=14).map(lambda ids: piece(*ids))
corpora = st.lists(bodies, min_size=1, max_size=5)


class Plain:
    """The formula, gram by gram."""

    def __init__(self, pieces: Sequence[np.ndarray], vocab: int, order: int) -> None:
        self.vocab, self.order = vocab, order
        ids = [tuple(int(token) for token in of_piece) for of_piece in pieces]
        raw = [Counter[Gram]() for _ in range(order + 1)]
        for length in range(1, order + 1):
            for row in ids:
                raw[length].update(row[end - length : end] for end in range(length, len(row) + 1))
        self.counts = [Counter[Gram]() for _ in range(order + 1)]
        for length in range(1, order):
            for longer in raw[length + 1]:
                self.counts[length][longer[1:]] += 1
            if length > 1:
                self.counts[length].update({gram: n for gram, n in raw[length].items() if gram[0] == BOS})
        self.counts[order] = raw[order]
        self.taken = [discounts(np.array(list(of.values()), np.int64)) for of in self.counts]

    def probability(self, context: Gram, token: int) -> float:
        context = context[-(self.order - 1) :]
        return self.of_length(len(context) + 1, (*context, token))

    def of_length(self, length: int, gram: Gram) -> float:
        if length == 0:
            return 1 / self.vocab
        shorter = self.of_length(length - 1, gram[1:])
        followed = [self.counts[length][(*gram[:-1], token)] for token in range(self.vocab)]
        if not sum(followed):
            return shorter
        taken = [self.taken[length][min(count, 3)] for count in followed]
        own = followed[gram[-1]] - taken[gram[-1]]
        return (own + sum(taken) * shorter) / sum(followed)


@settings(max_examples=80)
@given(corpora, bodies, st.integers(2, 6))
def test_it_is_the_formula(train: list[np.ndarray], scored: np.ndarray, order: int) -> None:
    plain = Plain(train, VOCAB, order)
    ids = [int(token) for token in scored]
    expected = [plain.probability(tuple(ids[:end]), ids[end]) for end in range(1, len(ids))]
    np.testing.assert_allclose(KneserNey(train, VOCAB, order=order).probabilities(scored), expected)


@settings(max_examples=40)
@given(corpora, st.lists(st.integers(2, VOCAB - 1), max_size=7), st.integers(2, 5))
def test_all_continuations_sum_to_one(train: list[np.ndarray], before: list[int], order: int) -> None:
    model = KneserNey(train, VOCAB, order=order)
    ends = [np.array([BOS, *before, token], np.uint16) for token in range(VOCAB)]
    assert math.fsum(model.probabilities(end)[-1] for end in ends) == pytest.approx(1)


def test_a_trigram_by_hand() -> None:
    # BOS a b EOS twice, BOS b EOS once; a = 2, b = 3. Counts are too few to tell the discounts: 0.5, 1, 1.5.
    model = KneserNey([piece(2, 3), piece(2, 3), piece(3)], 4, order=3)
    # single tokens, by how many different ones stand before them: EOS 1 (b), a 1 (BOS), b 2 (a, BOS); of 4
    alone = [(0 + 2 / 4) / 4, (0.5 + 2 / 4) / 4, (0.5 + 2 / 4) / 4, (1 + 2 / 4) / 4]
    # after BOS, which begins a piece, the counts themselves: a 2, b 1
    np.testing.assert_allclose(model.probabilities(piece(2))[0], (2 - 1 + 1.5 * alone[2]) / 3)
    # after BOS a: always b, twice; shorter: after a, b stands after one token (BOS)
    after_a = 1 - 0.5 + 0.5 * alone[3]
    np.testing.assert_allclose(model.probabilities(piece(2, 3))[1], (2 - 1 + 1 * after_a) / 2)
    # after EOS nothing was ever seen
    np.testing.assert_allclose(model.probabilities(np.array([0, 1, 2], np.uint16))[1], alone[2])


def test_discounts_by_hand() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 3])
    ratio = 8 / (8 + 2 * 4)
    assert discounts(counts) == pytest.approx(
        [0, 1 - 2 * ratio * 4 / 8, 2 - 3 * ratio * 2 / 4, 3 - 4 * ratio * 1 / 2]
    )


@pytest.mark.parametrize("counts", [[], [5, 6], [1, 1, 1], [1, 2, 3, 4, 4, 4, 4, 4]])
def test_discounts_where_counts_tell_nothing(counts: list[int]) -> None:
    assert discounts(np.array(counts, np.int64)).tolist() == [0, 0.5, 1, 1.5]


@cache
def songs() -> list[np.ndarray]:
    """Pieces in which a token mostly follows from the two before it."""
    draw = np.random.default_rng(0)
    made = []
    for _ in range(12):
        ids = [2, 3]
        while len(ids) < 200:
            ids.append(2 + (ids[-1] + ids[-2]) % 6 if draw.random() < 0.8 else int(draw.integers(2, 8)))
        made.append(piece(*ids))
    return made


@pytest.mark.parametrize("order", [3, 5])
def test_it_is_the_formula_where_counts_tell_the_discounts(order: int) -> None:
    train, scored = songs()[:5], songs()[5]
    plain = Plain(train, 8, order)
    assert plain.taken[order].tolist() != [0, 0.5, 1, 1.5]
    ids = [int(token) for token in scored]
    expected = [plain.probability(tuple(ids[:end]), ids[end]) for end in range(1, len(ids))]
    np.testing.assert_allclose(KneserNey(train, 8, order=order).probabilities(scored), expected)


def test_it_learns_what_a_bigram_cannot() -> None:
    train, held_out = songs()[:10], songs()[10:]
    five = kneser_ney(train, 8, order=5)(held_out)
    two = bigram(train, 8, add=0.1, prior=20.0)(held_out)
    assert sum(map(np.sum, five)) < 0.9 * sum(map(np.sum, two))


def test_beginnings_are_their_own() -> None:
    pieces = [piece(2, 3, 3, 3, 3, 2, 3, 3) for _ in range(6)]
    model = KneserNey(pieces, 4, order=3)
    first = model.probabilities(piece(2))[0]
    assert first > 0.8
    assert model.probabilities(piece(3, 3, 2))[2] < 0.5


def test_keys_of_a_large_vocabulary_fit() -> None:
    draw = np.random.default_rng(1)
    train = [piece(*draw.integers(2, 65_000, 300)) for _ in range(4)]
    model = KneserNey(train, 65_000, order=5)
    assert model.probabilities(train[0]).min() > 0.1, "each of these tokens was seen in its context"
    ends = (np.concatenate([train[1][:50], [token]]).astype(np.uint16) for token in range(0, 65_000, 97))
    assert all(0 < model.probabilities(end)[-1] < 1 for end in ends)


def test_the_order_of_the_pieces_does_not_matter() -> None:
    forward, backward = (
        kneser_ney(pieces, 8, order=4)(songs()[:2]) for pieces in (songs()[2:], songs()[:1:-1])
    )
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one, other)
