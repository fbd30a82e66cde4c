"""Baselines that any model must beat: uniform, unigram and bigram over the train split's tokens.

The unigram adds a constant to every count; the bigram leans on the unigram with a Dirichlet prior (MacKay &
Peto 1995), p(b | a) = (n(a, b) + m p(b)) / (n(a) + m), so that what was never seen has the unigram's odds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.scorer import Ids, Nats, Scorer


def uniform(vocab_size: int) -> Scorer:
    """Every token is equally likely."""
    return _independent(np.full(vocab_size, 1.0 / vocab_size))


def unigram_probabilities(pieces: Sequence[Ids], vocab_size: int, *, add: float) -> npt.NDArray[np.float64]:
    """(V,) share of each token among all but the first of each piece, `add` counted more for each."""
    counts = np.full(vocab_size, add, np.float64)
    for piece in pieces:
        counts += np.bincount(piece[1:], minlength=vocab_size)
    share: npt.NDArray[np.float64] = counts / counts.sum()
    return share


def unigram(pieces: Sequence[Ids], vocab_size: int, *, add: float) -> Scorer:
    """Tokens by their share of the train split."""
    return _independent(unigram_probabilities(pieces, vocab_size, add=add))


def _independent(probabilities: npt.NDArray[np.float64]) -> Scorer:
    nats = -np.log(probabilities)
    return lambda pieces: [np.concatenate([[0.0], nats[piece[1:]]]) for piece in pieces]


def _pairs(piece: Ids, vocab_size: int) -> npt.NDArray[np.int64]:
    """(T - 1,) one number for each token and the one before it."""
    return piece[:-1].astype(np.int64) * vocab_size + piece[1:]


def bigram(pieces: Sequence[Ids], vocab_size: int, *, add: float, prior: float) -> Scorer:
    """Tokens by what followed the one before in the train split, leaning on the unigram by `prior`
    pseudo-counts.

    Counts are kept for the pairs that occur: a table of all pairs would not fit under a large vocabulary.
    """
    common = unigram_probabilities(pieces, vocab_size, add=add)
    bigrams, counts = np.unique(
        np.concatenate([_pairs(piece, vocab_size) for piece in pieces]), return_counts=True
    )
    before = np.bincount(bigrams // vocab_size, weights=counts, minlength=vocab_size)

    def score(scored: Sequence[Ids]) -> list[Nats]:
        return [np.concatenate([[0.0], -np.log(probability(piece))]) for piece in scored]

    def probability(piece: Ids) -> npt.NDArray[np.float64]:
        pairs = _pairs(piece, vocab_size)
        index = np.minimum(np.searchsorted(bigrams, pairs), len(bigrams) - 1)
        count = np.where(bigrams[index] == pairs, counts[index], 0)
        return (count + prior * common[piece[1:]]) / (before[piece[:-1]] + prior)

    return score
