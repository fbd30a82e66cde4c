"""Which keys the queries of a chunk see, as blocks, masks and biases.

Every query sees itself and at most `window` tokens before it. Scores outside of that band are never computed:
blocks of queries attend to their own range of keys. Window 3, blocks of 4 queries, a chunk of 8 tokens after
3 remembered ones:

    keys     -3 -2 -1  0  1  2  3  4  5  6  7
    query 0   x  x  x  x  .  .  .                 first block: keys -3 ... 3
    query 1   .  x  x  x  x  .  .
    query 2   .  .  x  x  x  x  .
    query 3   .  .  .  x  x  x  x
    query 4               x  x  x  x  .  .  .     second block: keys 1 ... 7, the same band
    query 5               .  x  x  x  x  .  .
    ...

Without a window (None) the same blocks see everything before them.

Shapes: H heads, T queries of the chunk, N keys (remembered ones, then the chunk's own).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class QueryBlock(NamedTuple):
    """Queries first ... last - 1 of a chunk and the keys key_first ... key_last - 1 they may see."""

    first: int
    last: int
    key_first: int
    key_last: int

    @property
    def rows(self) -> int:
        """Queries."""
        return self.last - self.first

    @property
    def columns(self) -> int:
        """Keys."""
        return self.key_last - self.key_first


def query_blocks(num_queries: int, num_keys: int, *, window: int | None, size: int) -> list[QueryBlock]:
    """Cuts a chunk into blocks of `size` queries, each with the shortest range of keys holding its band."""
    context = num_keys - num_queries
    blocks = []
    for first in range(0, num_queries, size):
        last = min(first + size, num_queries)
        key_first = 0 if window is None else max(0, context + first - window)
        blocks.append(QueryBlock(first, last, key_first, context + last))
    return blocks


def _distances(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Tokens from each query back to each key, (T, N); negative for a key that comes after the query."""
    own = torch.arange(num_keys - num_queries, num_keys, device=device)
    return own[:, None] - torch.arange(num_keys, device=device)


def causal_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Which keys each query sees without a window, (T, N) bool."""
    return _distances(num_queries, num_keys, device) >= 0


@lru_cache(maxsize=64)
def band_mask(num_queries: int, num_keys: int, window: int, device: torch.device) -> Tensor:
    """Which keys each query sees within its window, (T, N) bool."""
    with torch.inference_mode(False):
        distances = _distances(num_queries, num_keys, device)
        return (distances >= 0) & (distances <= window)


@lru_cache(maxsize=64)
def additive_band(
    num_queries: int, num_keys: int, window: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """`band_mask` as what is added to the logits, (T, N): 0 for a key that is visible, -inf for another."""
    with torch.inference_mode(False):
        hidden = ~band_mask(num_queries, num_keys, window, device)
        return torch.zeros(hidden.shape, device=device, dtype=dtype).masked_fill_(hidden, float("-inf"))


def bias_matrix(biases: Tensor, *, num_queries: int, num_keys: int) -> Tensor:
    """Lays out the biases (n, H) of the distances 0 ... n - 1 for queries and keys; other pairs get -inf.

    A query's line is a piece of one row of L = N + T - 1 numbers, and the piece moves by one from query to
    query. So the row, repeated, is read in lines of L - 1, as in relative attention (Huang et al. 2018, arXiv
    1809.04281). For n = 2 distances, T = 3 and N = 4, with a dot for -inf:

        row . . 1 0 . .        query 0   1 0 . .
                               query 1   . 1 0 .
                               query 2   . . 1 0

    Returns:
        (H, T, N).
    """
    hidden = max(0, num_keys - biases.shape[0])
    row = F.pad(biases[:num_keys].T.flip(1), (hidden, num_queries - 1), value=float("-inf"))
    if num_queries == 1:
        return row[:, None]
    length = row.shape[1]
    lines = row.roll(1 - num_queries, dims=1).repeat(1, num_queries)[:, : num_queries * (length - 1)]
    return lines.view(-1, num_queries, length - 1)[:, :, :num_keys]
