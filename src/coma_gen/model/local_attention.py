"""Exact local attention: every query sees itself and at most `window` tokens before it.

masks.py defines the visible keys and the blocks. In training on a CPU the blocks are matrix products with a
hand-written gradient; everywhere else they use torch's scaled_dot_product_attention.

Shapes: B batch, G scales, H heads, T queries of the chunk, N keys (cached ones, then the chunk's own), d head
dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from coma_gen.model.masks import QueryBlock, additive_band, band_mask, bias_matrix, causal_mask, query_blocks
from coma_gen.model.portable import products_of
from coma_gen.model.positions import Rotation

MIN_QUERY_BLOCK, MAX_QUERY_BLOCK = 64, 128
"""Queries per block; few for a narrow window, where most of a long block would be masked."""

TRAINING_BLOCK = 64
"""Queries per block in training on a CPU: the working set of 8 heads fits into a core's cache."""


class _KeyRangesFn(torch.autograd.Function):
    """Overlapping ranges of the keys as views, whose gradients are accumulated in one tensor."""

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


def _split_blocks(
    queries: Tensor, keys: Tensor, values: Tensor, blocks: list[QueryBlock]
) -> list[tuple[QueryBlock, Tensor, Tensor, Tensor]]:
    """Splits queries, keys and values into blocks, each (B, H, *, d)."""
    if len(blocks) == 1 and blocks[0].key_first == 0:
        return [(blocks[0], queries, keys, values)]
    size = blocks[0].last
    ranges = [_KeyRangesFn.apply(part, blocks) for part in (keys, values)]  # type: ignore[no-untyped-call]
    return list(zip(blocks, torch.split(queries, size, dim=2), *ranges, strict=True))


@dataclass(frozen=True)
class _BlockRun:
    """Consecutive blocks of equal shape, computed by one batched matrix product.

    Attributes:
        first: Index of the first query.
        rows: Queries per block.
        blocks: Number of blocks.
        key_first: Index of the first block's first key.
        columns: Keys per block; the next block's keys start `rows` later.
    """

    first: int
    rows: int
    blocks: int
    key_first: int
    columns: int

    def cut_queries(self, queries: Tensor) -> Tensor:
        """Returns the blocks of queries (B, T, H, d) as a view (B, H, blocks, rows, d)."""
        own = queries[:, self.first : self.first + self.blocks * self.rows]
        return own.unfold(1, self.rows, self.rows).permute(0, 2, 1, 4, 3)

    def cut_keys(self, keys: Tensor, start: int = 0, size: int | None = None) -> Tensor:
        """Views keys start ... start + size - 1 of each block of (B, N, H, d) as (B, H, blocks, *, d)."""
        size = self.columns if size is None else size
        first = self.key_first + start
        visible = keys[:, first : first + (self.blocks - 1) * self.rows + size]
        return visible.unfold(1, size, self.rows).permute(0, 2, 1, 4, 3)

    def add_to_keys(self, total: Tensor, part: Tensor) -> None:
        """Adds the blocks' parts of the keys (B, H, blocks, columns, d) to `total` (B, N, H, d) in place."""
        size = self.columns if self.blocks == 1 else self.rows  # longer ranges of neighbors would overlap
        for start in range(0, self.columns, size):
            piece = part[:, :, :, start : start + size]
            self.cut_keys(total, start, piece.shape[3]).add_(piece)


@lru_cache(maxsize=64)
def _block_runs(num_queries: int, num_keys: int, window: int) -> list[_BlockRun]:
    """Groups the blocks of `TRAINING_BLOCK` queries by shape."""
    blocks = query_blocks(num_queries, num_keys, window=window, size=TRAINING_BLOCK)
    runs = []
    for (rows, columns), equal in groupby(blocks, lambda block: (block.rows, block.columns)):
        first, *others = equal
        runs.append(_BlockRun(first.first, rows, 1 + len(others), first.key_first, columns))
    return runs


class _LocalAttentionFn(torch.autograd.Function):
    """Local attention of all scales as matrix products that save the attention weights for the gradient.

    With P = softmax(s Q K^T + band), O = P V, and the incoming gradient dO:

        dV = P^T dO,   dL = P x (dP - rowsum(P x dP)) with dP = dO V^T,   dQ = s dL K,   dK = s dL^T Q

    P takes (window + block) numbers per token and head. torch's fused CPU kernel recomputes P instead; its
    backward pass has half the speed of these matrix products in float32 and a tenth in bfloat16. Nothing is
    copied into another layout: the products read and write strided views.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, windows: Sequence[int], softmax_scale: float
    ) -> Tensor:
        """Attends: queries (B, T, G, H, d), keys and values (B, N, G, H, d) -> (B, T, G, H, d)."""
        products, scaled = products_of(queries), queries * softmax_scale
        attended = torch.empty_like(scaled)
        weights = []
        for scale, window in enumerate(windows):
            for run in _block_runs(queries.shape[1], keys.shape[1], window):
                band = additive_band(run.rows, run.columns, window, queries.device, queries.dtype)
                visible_keys, content = run.cut_keys(keys[:, :, scale]), run.cut_keys(values[:, :, scale])
                logits = products.multiply(run.cut_queries(scaled[:, :, scale]), visible_keys.mT).add_(band)
                weights.append(logits.softmax(-1))
                products.multiply_into(weights[-1], content, out=run.cut_queries(attended[:, :, scale]))
        ctx.save_for_backward(scaled, keys, values, *weights)
        ctx.windows, ctx.softmax_scale = windows, softmax_scale
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled, keys, values, *saved = ctx.saved_tensors
        products, weights = products_of(scaled), iter(saved)
        of_queries = torch.empty_like(scaled)
        of_keys, of_values = (scaled.new_zeros(keys.shape) for _ in range(2))
        for scale, window in enumerate(ctx.windows):
            for run in _block_runs(scaled.shape[1], keys.shape[1], window):
                weight, incoming = next(weights), run.cut_queries(gradient[:, :, scale])
                run.add_to_keys(of_values[:, :, scale], products.multiply(weight.mT, incoming))
                of_weight = products.multiply(incoming, run.cut_keys(values[:, :, scale]).mT)
                of_logits = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
                products.multiply_into(
                    of_logits,
                    run.cut_keys(keys[:, :, scale]),
                    out=run.cut_queries(of_queries[:, :, scale]),
                )
                own = run.cut_queries(scaled[:, :, scale])
                run.add_to_keys(of_keys[:, :, scale], products.multiply(of_logits.mT, own))
        return of_queries.mul_(ctx.softmax_scale), of_keys, of_values, None, None


def local_attention_for_training(
    queries: Tensor, keys: Tensor, values: Tensor, *, windows: Sequence[int], softmax_scale: float
) -> Tensor:
    """Computes local attention of all scales with gradients that are fast on a CPU.

    Args:
        queries: (B, T, G, H, d), rotated.
        keys: (B, N, G, H, d), rotated; the last T belong to the tokens of the queries.
        values: (B, N, G, H, d).
        windows: Number of previous tokens visible to a query, per scale.
        softmax_scale: Factor of the logits.

    Returns:
        (B, T, G, H, d).
    """
    arguments = (queries, keys, values, tuple(windows), softmax_scale)
    attended: Tensor = _LocalAttentionFn.apply(*arguments)  # type: ignore[no-untyped-call]
    return attended


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
    """Computes softmax attention of one block.

    Args:
        queries: (B, H, T, d).
        keys: (B, H, N, d); the last T belong to the tokens of the queries.
        values: (B, H, N, d).
        window: Number of previous tokens visible to a query; None for all.
        padding: Number of leading padding keys in each row.
        biases: (distances, H) to add to the logits, or None.
        softmax_scale: Factor of the logits.
        dropout: Dropout probability of the attention weights.

    Returns:
        (B, T, H, d).
    """
    num_queries, num_keys, dtype = queries.shape[2], keys.shape[2], values.dtype
    if queries.device.type == "cpu" and dtype == torch.bfloat16:  # the bfloat16 kernel is slow or missing
        queries, keys, values = queries.float(), keys.float(), values.float()
    whole = window is None or num_keys <= window + 1
    padded = any(padding)
    causal = whole and not padded and biases is None and num_queries == num_keys
    mask: Tensor | None = None
    if biases is not None:
        mask = bias_matrix(biases, num_queries=num_queries, num_keys=num_keys).to(queries.dtype)
    elif window is not None and not whole:
        mask = band_mask(num_queries, num_keys, window, queries.device)
    elif not causal and (padded or num_queries > 1):
        mask = causal_mask(num_queries, num_keys, queries.device)
    if padded and mask is not None:
        first = torch.tensor(list(padding), device=queries.device)
        exists = (torch.arange(num_keys, device=queries.device) >= first[:, None])[:, None, None, :]
        mask = mask & exists if biases is None else mask.masked_fill(~exists, float("-inf"))
    attended = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=softmax_scale
    )
    return attended.to(dtype).transpose(1, 2)


def local_attention(
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
    """Computes local attention of a chunk, block by block; exact for any T, N and window.

    Args:
        queries: (B, H, T, d), not rotated.
        keys: (B, H, N, d), not rotated; the last T belong to the tokens of the queries.
        values: (B, H, N, d).
        window: Number of previous tokens visible to a query; None for all.
        padding: Number of leading padding keys in each row; empty for none.
        rotation: Rotary position of queries and keys, or None.
        biases: (distances, H) to add to the logits, or None.
        softmax_scale: Factor of the logits.
        dropout: Dropout probability of the attention weights.

    Returns:
        (B, T, H, d).
    """
    num_queries, num_keys, dtype = queries.shape[2], keys.shape[2], values.dtype
    inner = MAX_QUERY_BLOCK if window is None else min(max(window, MIN_QUERY_BLOCK), MAX_QUERY_BLOCK)
    outer = num_queries if rotation is None else rotation.max_queries
    is_plain = window is not None and biases is None and dropout == 0 and not any(padding)
    needs_grad = queries.requires_grad or keys.requires_grad
    is_training = is_plain and needs_grad and queries.device.type == "cpu"
    attended = []
    for part, part_queries, part_keys, part_values in _split_blocks(
        queries, keys, values, query_blocks(num_queries, num_keys, window=window, size=outer)
    ):
        if rotation is not None:
            part_queries, part_keys = rotation.rotate(part_queries, part_keys)
            part_queries, part_keys = part_queries.to(dtype), part_keys.to(dtype)
        if is_training:
            parts = (heads[:, :, None].transpose(1, 3) for heads in (part_queries, part_keys, part_values))
            output = local_attention_for_training(
                *parts, windows=(cast("int", window),), softmax_scale=softmax_scale
            )
            attended.append(output[:, :, 0])
            continue
        blocks = query_blocks(part_queries.shape[2], part_keys.shape[2], window=window, size=inner)
        for block, block_queries, block_keys, block_values in _split_blocks(
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
