"""Attention within a band: every query sees itself and at most `window` tokens before it, exactly.

Which keys those are, and how they are cut into blocks, stands in band_shapes.py. While a model learns on a
CPU the blocks are plain matrix products with a gradient of our own; everywhere else they go to the library's
fused kernel.

Shapes: B batch, H heads, T queries of the chunk, N keys (remembered ones, then the chunk's own), d head dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from coma_gen.model.masks import QueryBlock, additive_band, band_mask, bias_matrix, causal_mask, query_blocks
from coma_gen.model.positions import Rotation

MIN_QUERY_BLOCK, MAX_QUERY_BLOCK = 64, 128
"""Queries of a block: few for a narrow window, where a long block computes much that is masked."""

LEARNING_BLOCK = 64
"""Queries of a block while a model learns on a CPU: what 8 heads of a block work on stays in a core's cache.
"""


class _KeyRangesFn(torch.autograd.Function):
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
    ranges = [_KeyRangesFn.apply(part, blocks) for part in (keys, values)]  # type: ignore[no-untyped-call]
    return list(zip(blocks, torch.split(queries, size, dim=2), *ranges, strict=True))


class _LocalAttentionFn(torch.autograd.Function):
    """Attention within a band, block by block, as matrix products that keep their weights for the gradient.

    With P = softmax(s Q K^T + band), O = P V, and the incoming gradient dO:

        dV = P^T dO,   dL = P x (dP - rowsum(P x dP)) with dP = dO V^T,   dQ = s dL K,   dK = s dL^T Q

    P takes (window + block) numbers a token and head. On a CPU the library's fused kernel, which keeps none
    of them, runs its gradient at half the speed of matrix products in float32, at a tenth in bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, window: int, softmax_scale: float
    ) -> Tensor:
        """(B, H, T, d), twice (B, H, N, d) -> (B, T, H, d)."""
        batch, heads, length, head_dim = queries.shape
        blocks = query_blocks(length, keys.shape[2], window=window, size=LEARNING_BLOCK)
        attended = queries.new_empty(batch, length, heads, head_dim)
        queries, keys, values = (part.flatten(0, 1) for part in (queries, keys, values))
        longest = max(block.key_last - block.key_first for block in blocks)
        room = queries.new_empty(batch * heads * LEARNING_BLOCK * longest)
        weights = []
        for block in blocks:
            own, seen = slice(block.first, block.last), slice(block.key_first, block.key_last)
            shape = (batch * heads, block.last - block.first, block.key_last - block.key_first)
            band = additive_band(shape[1], shape[2], window, queries.device, queries.dtype)
            logits = room[: math.prod(shape)].view(shape)
            torch.baddbmm(band, queries[:, own], keys[:, seen].mT, alpha=softmax_scale, out=logits)
            weights.append(logits.softmax(-1))
            block_attended = torch.bmm(weights[-1], values[:, seen])
            attended[:, own] = block_attended.view(batch, heads, -1, head_dim).transpose(1, 2)
        ctx.save_for_backward(queries, keys, values, *weights)
        ctx.blocks, ctx.shape, ctx.softmax_scale = blocks, (batch, heads, -1, head_dim), softmax_scale
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, *weights = ctx.saved_tensors
        gradient = gradient.transpose(1, 2).reshape(queries.shape)
        of_queries = torch.empty_like(queries)
        of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
        for block, weight in zip(ctx.blocks, weights, strict=True):
            own, seen = slice(block.first, block.last), slice(block.key_first, block.key_last)
            of_values[:, seen].baddbmm_(weight.mT, gradient[:, own])
            of_weight = torch.bmm(gradient[:, own], values[:, seen].mT)
            of_logits = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
            of_queries[:, own] = torch.bmm(of_logits, keys[:, seen])
            of_keys[:, seen].baddbmm_(of_logits.mT, queries[:, own])
        of_queries.mul_(ctx.softmax_scale)
        of_keys.mul_(ctx.softmax_scale)
        return *(part.view(ctx.shape) for part in (of_queries, of_keys, of_values)), None, None


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
    num_queries, num_keys, dtype = queries.shape[2], keys.shape[2], values.dtype
    if (
        queries.device.type == "cpu" and dtype == torch.bfloat16
    ):  # not every CPU has the kernel, and it is slow
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
    is_plain = window is not None and biases is None and dropout == 0 and not any(padding)
    is_learning = is_plain and queries.device.type == "cpu" and (queries.requires_grad or keys.requires_grad)
    attended = []
    for part, *around in _cut(
        queries, keys, values, query_blocks(num_queries, num_keys, window=window, size=outer)
    ):
        part_queries, part_keys, part_values = around
        if rotation is not None:
            part_queries, part_keys = rotation.rotate(part_queries, part_keys)
            part_queries, part_keys = part_queries.to(dtype), part_keys.to(dtype)
        if is_learning:
            arguments = (part_queries, part_keys, part_values, window, softmax_scale)
            attended.append(_LocalAttentionFn.apply(*arguments))  # type: ignore[no-untyped-call]
            continue
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
