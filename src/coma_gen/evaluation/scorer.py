"""Scorer: the common interface of n-gram models and networks, from pieces to the nats of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint16]
Nats = npt.NDArray[np.float64]
Scorer = Callable[[Sequence[Ids]], list[Nats]]
"""Maps the ids (T,) of each piece, BOS first, to the nats (T,) of its tokens; those of BOS are 0."""
