"""An n-gram model with interpolated Kneser-Ney smoothing, the strongest baseline based on counts.

It has three discounts for each length of gram (Chen and Goodman 1998, "An Empirical Study of Smoothing
Techniques for Language Modeling"):

    p(w | h) = (c(h w) - D(c(h w))) / c(h)  +  left(h) p(w | h without its oldest token)

At full length, c counts the occurrences of a gram in the train split. At shorter lengths, c counts the
different tokens that precede the gram (Kneser and Ney 1995), since what follows one context says little about
others. A gram at the beginning of a piece has no predecessor and keeps its own count, so that beginnings are
modeled as such. Below single tokens, the distribution over the vocabulary is uniform.

A gram is stored as (number of its context, its last token), and its number is its rank among those of the
train split: two integers, for any length of gram and size of vocabulary.

Shapes: T tokens, V vocabulary, G different grams of one length, C different contexts (the grams one token
shorter).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.scorer import Ids, Nats, Scorer

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
UNSEEN = -1
FEW_COUNTS_DISCOUNTS = (0.5, 1.0, 1.5)
"""Discounts of counts 1, 2, and 3 or more where the data are insufficient to estimate them."""


@dataclass(frozen=True)
class _GramTable:
    """The grams of one length.

    Attributes:
        keys: (G,) number of the context * V + last token, ascending.
        share: (G,) discounted probability of the gram given its context.
        left: (C,) probability mass that the discounts leave to shorter grams; 1 where nothing ever followed.
    """

    keys: Integers
    share: Floats
    left: Floats


class KneserNey:
    """An n-gram model fitted to a train split.

    Args:
        pieces: (T,) ids of each piece, BOS first; the first token is never predicted.
        vocab_size: V.
        order: Number of tokens of the longest gram, at least 2.
    """

    def __init__(self, pieces: Sequence[Ids], vocab_size: int, *, order: int) -> None:
        self._vocab_size = vocab_size
        self._lengths: list[_GramTable] = []
        tokens = np.concatenate(pieces)
        position = np.concatenate([np.arange(len(piece), dtype=np.int32) for piece in pieces])
        numbers = tokens.astype(np.int32)
        """(T,) the number of the gram that ends at each position; UNSEEN where fewer tokens precede it."""
        keys: Integers = np.arange(vocab_size, dtype=np.int64)
        for length in range(2, order + 1):
            longer, found, last = _rank_keys(_to_keys(numbers, tokens, vocab_size, position >= length - 1))
            counts = np.bincount(numbers[last], minlength=len(keys))
            if length > 2:
                counts += np.bincount(numbers[position == length - 2], minlength=len(keys))
            self._add_length(keys, counts)
            numbers, keys = found, longer
        self._add_length(keys, np.bincount(numbers[numbers != UNSEEN], minlength=len(keys)))

    def _add_length(self, keys: Integers, counts: Integers) -> None:
        """Computes probabilities from the counts of the next length."""
        contexts = len(self._lengths[-1].keys) if self._lengths else 1
        context = keys // self._vocab_size
        taken = discounts(counts)[np.minimum(counts, 3)]
        total = np.bincount(context, weights=counts, minlength=contexts)
        left = np.ones(contexts)
        np.divide(np.bincount(context, weights=taken, minlength=contexts), total, out=left, where=total > 0)
        share = np.zeros(len(keys))
        np.divide(counts - taken, total[context], out=share, where=total[context] > 0)
        self._lengths.append(_GramTable(keys, share, left))

    def probabilities(self, piece: Ids) -> Floats:
        """Returns the probability (T - 1,) of each token but the first, given those before it."""
        tokens = np.asarray(piece, np.int64)
        single = self._lengths[0]
        found = single.share[tokens] + single.left[0] / self._vocab_size
        numbers = tokens.astype(np.int32)
        for length, grams in enumerate(self._lengths[1:], 2):
            if not len(grams.keys):
                break
            has = np.arange(len(piece)) >= length - 1
            ranks = _lookup(grams.keys, _to_keys(numbers, piece, self._vocab_size, has))
            context, rank, shorter = numbers[length - 2 : -1], ranks[length - 1 :], found[length - 1 :]
            share = np.where(rank == UNSEEN, 0.0, grams.share[rank])
            found[length - 1 :] = np.where(context == UNSEEN, shorter, share + grams.left[context] * shorter)
            numbers = ranks
        return np.asarray(found[1:], np.float64)


def kneser_ney(pieces: Sequence[Ids], vocab_size: int, *, order: int) -> Scorer:
    """Fits an n-gram model that predicts each token from the `order` - 1 tokens before it."""
    model = KneserNey(pieces, vocab_size, order=order)

    def score(scored: Sequence[Ids]) -> list[Nats]:
        return [np.concatenate([[0.0], -np.log(model.probabilities(piece))]) for piece in scored]

    return score


def discounts(counts: npt.NDArray[np.signedinteger]) -> Floats:
    """Estimates the discounts (4,) of counts 0, 1, 2, and 3 or more from the frequencies of counts 1 to 4."""
    of = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    few = np.array([0.0, *FEW_COUNTS_DISCOUNTS])
    if not of.all():
        return few
    ratio = of[0] / (of[0] + 2 * of[1])
    found = np.array(
        [0.0, *(number - (number + 1) * ratio * of[number] / of[number - 1] for number in (1, 2, 3))]
    )
    is_sane = ((found[1:] > 0) & (found[1:] <= [1, 2, 3])).all()
    return found if is_sane else few


def _to_keys(numbers: Numbers, tokens: Ids, vocab_size: int, has: npt.NDArray[np.bool_]) -> Integers:
    """Returns the key (T,) of the gram that ends at each position, one token longer than those of `numbers`.

    The key is UNSEEN where `has` is False or the context has no number.
    """
    known = has.copy()
    known[:1] = False
    known[1:] &= numbers[:-1] != UNSEEN
    keys = np.zeros(len(tokens), np.int64)
    np.multiply(numbers[:-1], vocab_size, out=keys[1:], dtype=np.int64)
    keys += tokens
    keys[~known] = UNSEEN
    return keys


def _rank_keys(keys: Integers) -> tuple[Integers, Numbers, Integers]:
    """Returns the unique keys without UNSEEN, ascending (G,); the rank of each key (T,); and one position of
    each unique key (G,).
    """
    order = np.argsort(keys)
    ascending = keys[order]
    is_new = np.diff(ascending, prepend=UNSEEN) != 0
    ranks = np.empty(len(keys), np.int32)
    ranks[order] = np.cumsum(is_new, dtype=np.int32) - 1
    return ascending[is_new], ranks, order[is_new]


def _lookup(keys: Integers, queries: Integers) -> Numbers:
    """Returns the rank (T,) of each query among ascending keys (G,), G > 0; UNSEEN where it is missing."""
    rank = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[rank] == queries, rank, UNSEEN).astype(np.int32)
