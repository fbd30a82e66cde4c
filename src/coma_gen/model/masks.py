"""Blocks, masks and bias matrices of local attention.

Every query sees itself and at most `window` tokens before it. Each block of queries attends to its own range
of keys, so most scores outside the band are never computed. Window 3, blocks of 4 queries, a chunk of 8
tokens after 3 cached ones:

    keys     -3 -2 -1  0  1  2  3  4  5  6  7
    query 0   x  x  x  x  .  .  .                 first block: keys -3 ... 3
    query 1   .  x  x  x  x  .  .
    query 2   .  .  x  x  x  x  .
    query 3   .  .  .  x  x  x  x
    query 4               x  x  x  x  .  .  .     second block: keys 1 ... 7, the same band
    query 5               .  x  x  x  x  .  .
    ...

Without a window (None) each block sees all tokens before it.

Shapes: H heads, T queries of the chunk, N keys (cached ones, then the chunk's own).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class QueryBlock(NamedTuple):
    """Queries first ... last - 1 of a chunk and their visible keys key_first ... key_last - 1."""

    first: int
    last: int
    key_first: int
    key_last: int

    @property
    def rows(self) -> int:
        """Number of queries."""
        return self.last - self.first

    @property
    def columns(self) -> int:
        """Number of keys."""
        return self.key_last - self.key_first


def query_blocks(num_queries: int, num_keys: int, *, window: int | None, size: int) -> list[QueryBlock]:
    """Splits a chunk into blocks of `size` queries, each with the shortest range of keys it can see."""
    context = num_keys - num_queries
    blocks = []
    for first in range(0, num_queries, size):
        last = min(first + size, num_queries)
        key_first = 0 if window is None else max(0, context + first - window)
        blocks.append(QueryBlock(first, last, key_first, context + last))
    return blocks


def _distances(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Returns the distance from each query back to each key, (T, N); negative for keys after the query."""
    own = torch.arange(num_keys - num_queries, num_keys, device=device)
    return own[:, None] - torch.arange(num_keys, device=device)


def causal_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Returns the causal mask (T, N) bool, True for visible keys."""
    return _distances(num_queries, num_keys, device) >= 0


@lru_cache(maxsize=64)
def band_mask(num_queries: int, num_keys: int, window: int, device: torch.device) -> Tensor:
    """Returns the mask of a sliding window (T, N) bool, True for visible keys."""
    with torch.inference_mode(False):
        distances = _distances(num_queries, num_keys, device)
        return (distances >= 0) & (distances <= window)


@lru_cache(maxsize=64)
def additive_band(
    num_queries: int, num_keys: int, window: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Returns `band_mask` in additive form (T, N): 0 for visible keys, -inf for others."""
    with torch.inference_mode(False):
        hidden = ~band_mask(num_queries, num_keys, window, device)
        return torch.zeros(hidden.shape, device=device, dtype=dtype).masked_fill_(hidden, float("-inf"))


def bias_matrix(biases: Tensor, *, num_queries: int, num_keys: int) -> Tensor:
    """Expands the biases (n, H) of the distances 0 ... n - 1 to a matrix (H, T, N); other pairs get -inf.

    Each query's biases are a slice of one row of L = N + T - 1 numbers, shifted by one from query to query.
    Reading the repeated row in lines of L - 1 gives all slices without indexing, as in relative attention
    (Huang et al. 2018, arXiv 1809.04281). For n = 2 distances, T = 3 and N = 4, with a dot for -inf:

        row . . 1 0 . .        query 0   1 0 . .
                               query 1   . 1 0 .
                               query 2   . . 1 0
    """
    hidden = max(0, num_keys - biases.shape[0])
    row = F.pad(biases[:num_keys].T.flip(1), (hidden, num_queries - 1), value=float("-inf"))
    if num_queries == 1:
        return row[:, None]
    length = row.shape[1]
    lines = row.roll(1 - num_queries, dims=1).repeat(1, num_queries)[:, : num_queries * (length - 1)]
    return lines.view(-1, num_queries, length - 1)[:, :, :num_keys]
