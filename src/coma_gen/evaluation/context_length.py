"""How much a token costs by how many tokens the model saw before it, in bins that double.

Two curves say two things. Since the start of a performance, context and music grow together: beginnings are
unlike middles. Within windows that start anywhere, the same tokens stand at every position, so that what
falls there is what context is worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.scorer import Nats

BINS = 40
"""Bin b holds the tokens with more than 2^(b - 1) and up to 2^b tokens before them."""


class ContextCurve:
    """Tokens and nats by context, added up."""

    def __init__(self) -> None:
        self._tokens = np.zeros(BINS, np.int64)
        self._nats = np.zeros(BINS)

    @classmethod
    def since_start(cls, nats: Sequence[Nats]) -> ContextCurve:
        """The curve over whole pieces: nats (T,) of each, of which the first token is given."""
        curve = cls()
        for of_piece in nats:
            curve.add(np.arange(1, len(of_piece)), of_piece[1:])
        return curve

    def add(self, context: npt.NDArray[np.signedinteger], nats: Nats) -> None:
        """Adds tokens: how many were seen before each, at least 1, and what each cost; both (N,)."""
        bins = np.frexp(context - 0.5)[1]
        self._tokens += np.bincount(bins, minlength=BINS)
        self._nats += np.bincount(bins, weights=nats, minlength=BINS)

    def include(self, other: ContextCurve) -> None:
        """Adds the tokens of another curve."""
        self._tokens += other._tokens
        self._nats += other._nats

    def rows(self) -> Iterator[dict[str, float]]:
        """context_from, context_to (both included), tokens and nll_per_token of each bin that has tokens."""
        for bin_index in np.flatnonzero(self._tokens):
            tokens = int(self._tokens[bin_index])
            cost = float(self._nats[bin_index] / tokens)
            last = 1 << int(bin_index)
            yield {
                "context_from": last // 2 + 1,
                "context_to": last,
                "tokens": tokens,
                "nll_per_token": cost,
            }
