"""Scorer: pieces in, the nats of each of their tokens out; what n-grams and networks have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint16]
Nats = npt.NDArray[np.float64]
Scorer = Callable[[Sequence[Ids]], list[Nats]]
"""(T,) ids of each piece, BOS first, to (T,) nats of each; the first token is given and costs nothing."""
