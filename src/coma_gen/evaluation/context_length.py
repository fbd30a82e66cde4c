"""Negative log-likelihood per token as a function of context length, in bins that double.

Two curves measure different things. Counted from the start of a performance, context length is confounded
with the music: beginnings differ from middles. Within windows that start anywhere, each token occurs at every
position, so a decrease is due to context alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.scorer import Nats

BINS = 40
"""Bin b counts tokens with more than 2^(b - 1) and at most 2^b tokens before them."""


class ContextCurve:
    """Accumulates tokens and nats by context length."""

    def __init__(self) -> None:
        self._tokens = np.zeros(BINS, np.int64)
        self._nats = np.zeros(BINS)

    @classmethod
    def since_start(cls, nats: Sequence[Nats]) -> ContextCurve:
        """Builds the curve over whole pieces from the nats (T,) of each; the first token is not predicted."""
        curve = cls()
        for of_piece in nats:
            curve.add(np.arange(1, len(of_piece)), of_piece[1:])
        return curve

    def add(self, context: npt.NDArray[np.signedinteger], nats: Nats) -> None:
        """Adds tokens by their context lengths (N,), at least 1, and nats (N,)."""
        bins = np.frexp(context - 0.5)[1]
        self._tokens += np.bincount(bins, minlength=BINS)
        self._nats += np.bincount(bins, weights=nats, minlength=BINS)

    def include(self, other: ContextCurve) -> None:
        """Adds the tokens of another curve."""
        self._tokens += other._tokens
        self._nats += other._nats

    def rows(self) -> Iterator[dict[str, float]]:
        """Yields context_from, context_to (inclusive), tokens and nll_per_token of each bin with tokens."""
        for bin_index in np.flatnonzero(self._tokens):
            tokens = int(self._tokens[bin_index])
            last = 1 << int(bin_index)
            yield {
                "context_from": last // 2 + 1,
                "context_to": last,
                "tokens": tokens,
                "nll_per_token": float(self._nats[bin_index] / tokens),
            }
