"""Attention within a band: every query sees itself and at most `window` tokens before it, exactly.

Scores outside the band are never computed: blocks of queries attend to their own range of keys. Window 3,
blocks of 4 queries, a chunk of 8 tokens after 3 remembered ones:

    keys     -3 -2 -1  0  1  2  3  4  5  6  7
    query 0   x  x  x  x  .  .  .                 first block: keys -3 ... 3
    query 1   .  x  x  x  x  .  .
    query 2   .  .  x  x  x  x  .
    query 3   .  .  .  x  x  x  x
    query 4               x  x  x  x  .  .  .     second block: keys 1 ... 7, the same band
    query 5               .  x  x  x  x  .  .
    ...

Without a window (None) the same blocks see everything before them.

Shapes: B batch, H heads, T queries of the chunk, N keys (remembered ones, then the chunk's own), d head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from coma_gen.model.positions import Rotation

MIN_QUERY_BLOCK, MAX_QUERY_BLOCK = 64, 128
"""Queries of a block: few for a narrow window, where a long block computes much that is masked."""


class QueryBlock(NamedTuple):
    """Queries first ... last - 1 of a chunk and the keys key_first ... key_last - 1 they may see."""

    first: int
    last: int
    key_first: int
    key_last: int


def query_blocks(num_queries: int, num_keys: int, *, window: int | None, size: int) -> list[QueryBlock]:
    """Cuts a chunk into blocks of `size` queries, each with the shortest range of keys holding its band."""
    context = num_keys - num_queries
    blocks = []
    for first in range(0, num_queries, size):
        last = min(first + size, num_queries)
        key_first = 0 if window is None else max(0, context + first - window)
        blocks.append(QueryBlock(first, last, key_first, context + last))
    return blocks


class _KeyRanges(torch.autograd.Function):
    """Overlapping ranges of the keys, as views, whose gradients are added into one tensor."""

    @staticmethod
    def forward(ctx: Any, keys: Tensor, blocks: Sequence[QueryBlock]) -> tuple[Tensor, ...]:
        ctx.blocks, ctx.shape = blocks, keys.shape
        return tuple(keys[:, :, block.key_first : block.key_last] for block in blocks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].new_zeros(ctx.shape)
        for block, gradient in zip(ctx.blocks, gradients, strict=True):
            total[:, :, block.key_first : block.key_last] += gradient
        return total, None


def _cut(
    queries: Tensor, keys: Tensor, values: Tensor, blocks: list[QueryBlock]
) -> list[tuple[QueryBlock, Tensor, Tensor, Tensor]]:
    """Queries, keys and values of each block, each (B, H, *, d)."""
    if len(blocks) == 1 and blocks[0].key_first == 0:
        return [(blocks[0], queries, keys, values)]
    size = blocks[0].last
    ranges = [_KeyRanges.apply(part, blocks) for part in (keys, values)]  # type: ignore[no-untyped-call]
    return list(zip(blocks, torch.split(queries, size, dim=2), *ranges, strict=True))


def _distances(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Tokens from each query back to each key, (T, N); negative for a key that comes after the query."""
    own = torch.arange(num_keys - num_queries, num_keys, device=device)
    return own[:, None] - torch.arange(num_keys, device=device)


def _causal(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Which keys each query sees without a window, (T, N) bool."""
    return _distances(num_queries, num_keys, device) >= 0


@lru_cache(maxsize=64)
def _band(num_queries: int, num_keys: int, window: int, device: torch.device) -> Tensor:
    """Which keys each query sees within its window, (T, N) bool."""
    with torch.inference_mode(False):
        distances = _distances(num_queries, num_keys, device)
        return (distances >= 0) & (distances <= window)


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


def _attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    window: int | None,
    padding: Sequence[int],
    biases: Tensor | None,
    softmax_scale: float,
    dropout: float,
) -> Tensor:
    """Softmax attention of one block.

    Args:
        queries: (B, H, T, d).
        keys: (B, H, N, d); the last T are the queries' own tokens.
        values: (B, H, N, d).
        window: tokens a query sees before itself; None for all.
        padding: for each row, how many of the keys, the first, stand for no token.
        biases: (distances, H) to add to the logits, or None.
        softmax_scale: what the products are multiplied by.
        dropout: share of the attention weights set to zero.

    Returns:
        (B, T, H, d).
    """
    num_queries, num_keys = queries.shape[2], keys.shape[2]
    whole = window is None or num_keys <= window + 1
    padded = any(padding)
    causal = whole and not padded and biases is None and num_queries == num_keys
    mask: Tensor | None = None
    if biases is not None:
        mask = bias_matrix(biases, num_queries=num_queries, num_keys=num_keys).to(queries.dtype)
    elif window is not None and not whole:
        mask = _band(num_queries, num_keys, window, queries.device)
    elif not causal and (padded or num_queries > 1):
        mask = _causal(num_queries, num_keys, queries.device)
    if padded and mask is not None:
        first = torch.tensor(list(padding), device=queries.device)
        exists = (torch.arange(num_keys, device=queries.device) >= first[:, None])[:, None, None, :]
        mask = mask & exists if biases is None else mask.masked_fill(~exists, float("-inf"))
    attended = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=softmax_scale
    )
    return attended.transpose(1, 2)


def banded_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    window: int | None,
    padding: Sequence[int] = (),
    rotation: Rotation | None = None,
    biases: Tensor | None = None,
    softmax_scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of a chunk within its band, block by block; exact for any T, N and window.

    Args:
        queries: (B, H, T, d), not rotated.
        keys: (B, H, N, d), not rotated; the last T are the queries' own tokens.
        values: (B, H, N, d).
        window: tokens a query sees before itself; None for all.
        padding: for each row, how many of the keys, the first, stand for no token; empty for none.
        rotation: positions to turn queries and keys by, or None.
        biases: (distances, H) to add to the logits, or None.
        softmax_scale: what the products are multiplied by.
        dropout: share of the attention weights set to zero.

    Returns:
        (B, T, H, d).
    """
    num_queries, num_keys, dtype = queries.shape[2], keys.shape[2], values.dtype
    inner = MAX_QUERY_BLOCK if window is None else min(max(window, MIN_QUERY_BLOCK), MAX_QUERY_BLOCK)
    outer = num_queries if rotation is None else rotation.max_queries
    attended = []
    for part, *around in _cut(
        queries, keys, values, query_blocks(num_queries, num_keys, window=window, size=outer)
    ):
        part_queries, part_keys, part_values = around
        if rotation is not None:
            part_queries, part_keys = rotation.rotate(part_queries, part_keys)
            part_queries, part_keys = part_queries.to(dtype), part_keys.to(dtype)
        blocks = query_blocks(part_queries.shape[2], part_keys.shape[2], window=window, size=inner)
        for block, block_queries, block_keys, block_values in _cut(
            part_queries, part_keys, part_values, blocks
        ):
            attended.append(
                _attend(
                    block_queries,
                    block_keys,
                    block_values,
                    window=window,
                    padding=[max(0, row - part.key_first - block.key_first) for row in padding],
                    biases=biases,
                    softmax_scale=softmax_scale,
                    dropout=dropout,
                )
            )
    return attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)
