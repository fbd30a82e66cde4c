"""Simple baselines over the train split's tokens: uniform, unigram and bigram.

The unigram has additive smoothing. The bigram is smoothed towards the unigram with a Dirichlet prior (MacKay
& Peto 1995), p(b | a) = (n(a, b) + m p(b)) / (n(a) + m).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.scorer import Ids, Nats, Scorer


def uniform(vocab_size: int) -> Scorer:
    """Scores every token as equally likely."""
    return _score_independently(np.full(vocab_size, 1.0 / vocab_size))


def unigram_probabilities(pieces: Sequence[Ids], vocab_size: int, *, add: float) -> npt.NDArray[np.float64]:
    """Returns the frequency (V,) of each token, without the first of each piece, with additive smoothing."""
    counts = np.full(vocab_size, add, np.float64)
    for piece in pieces:
        counts += np.bincount(piece[1:], minlength=vocab_size)
    share: npt.NDArray[np.float64] = counts / counts.sum()
    return share


def unigram(pieces: Sequence[Ids], vocab_size: int, *, add: float) -> Scorer:
    """Fits a model that scores tokens by their frequency in the train split."""
    return _score_independently(unigram_probabilities(pieces, vocab_size, add=add))


def _score_independently(probabilities: npt.NDArray[np.float64]) -> Scorer:
    nats = -np.log(probabilities)
    return lambda pieces: [np.concatenate([[0.0], nats[piece[1:]]]) for piece in pieces]


def _encode_pairs(piece: Ids, vocab_size: int) -> npt.NDArray[np.int64]:
    """Returns one number (T - 1,) for each pair of consecutive tokens."""
    return piece[:-1].astype(np.int64) * vocab_size + piece[1:]


def bigram(pieces: Sequence[Ids], vocab_size: int, *, add: float, prior: float) -> Scorer:
    """Fits a bigram model to the train split, smoothed towards the unigram by `prior` pseudo-counts.

    Only pairs that occur are stored: a dense table would not fit in memory for a large vocabulary.
    """
    common = unigram_probabilities(pieces, vocab_size, add=add)
    bigrams, counts = np.unique(
        np.concatenate([_encode_pairs(piece, vocab_size) for piece in pieces]), return_counts=True
    )
    before = np.bincount(bigrams // vocab_size, weights=counts, minlength=vocab_size)

    def score(scored: Sequence[Ids]) -> list[Nats]:
        return [np.concatenate([[0.0], -np.log(probability(piece))]) for piece in scored]

    def probability(piece: Ids) -> npt.NDArray[np.float64]:
        pairs = _encode_pairs(piece, vocab_size)
        index = np.minimum(np.searchsorted(bigrams, pairs), len(bigrams) - 1)
        count = np.where(bigrams[index] == pairs, counts[index], 0)
        return (count + prior * common[piece[1:]]) / (before[piece[:-1]] + prior)

    return score
