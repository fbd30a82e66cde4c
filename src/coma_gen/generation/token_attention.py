"""Attention of one new token over the cache, read in place. Part of token_decoder.py.

Shapes: B batch, D dim, G scales (attention windows), H heads of a scale, d head dim, N visible tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from coma_gen.generation.step_buffers import QKVBuffer, StepBuffers
from coma_gen.model.attention import SMALLEST_NORM, MultiScaleAttention
from coma_gen.model.cache import KVCache, LayerCache
from coma_gen.model.portable import products_of


class VisibleSpan(NamedTuple):
    """The keys of one window that the new tokens' queries see.

    Attributes:
        visible: N, the number of visible tokens in the longest row, the new token included.
        exists: (B, 1, 1, N) bool, False where a shorter row has no token; None where all rows have N.
    """

    visible: int
    exists: Tensor | None

    @classmethod
    def after(cls, lengths: Sequence[int], *, window: int | None, device: torch.device) -> VisibleSpan:
        """Computes the span for rows with `lengths` tokens before the new one."""
        before = max(lengths) if window is None else min(max(lengths), window)
        if min(lengths) >= before:
            return cls(before + 1, None)
        missing = torch.tensor([max(0, before - length) for length in lengths], device=device)
        exists = torch.arange(before + 1, device=device) >= missing[:, None]
        return cls(before + 1, exists[:, None, None])


class StepContext(NamedTuple):
    """Values that all sublayers share during one step.

    Attributes:
        num_appended: Number of tokens since the cache was last compacted.
        spans: Window size -> visible span.
    """

    num_appended: int
    spans: Mapping[int | None, VisibleSpan]

    @property
    def is_full(self) -> bool:
        """Whether every row fills every window, so that the step depends on `num_appended` alone."""
        return all(
            window is not None and span.visible > window and span.exists is None
            for window, span in self.spans.items()
        )

    @classmethod
    def after(
        cls,
        lengths: Sequence[int],
        *,
        num_appended: int,
        windows: Collection[int | None],
        device: torch.device,
    ) -> StepContext:
        """Computes the context of the token after `lengths` others."""
        return cls(
            num_appended, {size: VisibleSpan.after(lengths, window=size, device=device) for size in windows}
        )


class FunctionalLayerNorm:
    """A layer norm without the overhead of a module call."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.shape, self.weight, self.bias, self.eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *) -> (B, *)."""
        return torch.layer_norm(x, self.shape, self.weight, self.bias, self.eps, False)


class TokenAttention:
    """Attention of the new token over the cache and itself.

    Args:
        attention: Layer whose weights are used.
        capacity: Number of tokens that a cache takes before it is compacted.
    """

    def __init__(self, attention: MultiScaleAttention, *, capacity: int) -> None:
        self.products = products_of(attention.qkv.weight)
        self.norm, self.qkv, self.out = (
            FunctionalLayerNorm(attention.norm),
            attention.qkv.weight.t(),
            attention.out.weight.t(),
        )
        self.normalizes, self.softmax_scale = attention.query_gain is not None, attention.softmax_scale
        self.cosines, self.sines = _rotation_tables(attention, capacity=capacity)
        self.shares = None
        if attention.scale_weights is not None:
            width = attention.num_heads * attention.head_dim
            self.shares = attention.scale_weights.softmax(0).repeat_interleave(width)
        self.windows, self.position_bias = attention.window_sizes, attention.position_bias
        self.biases = attention.out.weight.new_empty(0)

    def bind(self, buffers: StepBuffers) -> None:
        """Binds the projections to these buffers."""
        self.heads = buffers.heads[len(self.windows)]
        self.project_qkv = self.products.bind(self.qkv, self.heads.fused)
        self.project_output = self.products.bind(self.out, buffers.output)

    def __call__(self, buffers: StepBuffers, layer_cache: Sequence[LayerCache], context: StepContext) -> None:
        """Computes the buffers' output from their input, both (B, D), and adds the token to the cache."""
        heads, num_appended = self.heads, context.num_appended
        self.project_qkv(self.norm(buffers.input))
        self._normalize_and_rotate(heads, num_appended)
        attended = []
        for scale, part in enumerate(cast("Sequence[KVCache]", layer_cache)):
            span = context.spans[self.windows[scale]]
            keys, values = part.write(
                heads.keys_values[scale], num_appended=num_appended, visible=span.visible
            )
            mask = span.exists if self.position_bias is None else self._bias(scale, span)
            attended.append(
                self.products.attend(
                    heads.queries[scale], keys, values, attn_mask=mask, scale=self.softmax_scale
                )
            )
        joined = torch.cat(attended, dim=1).view(buffers.output.shape[0], -1)
        if self.shares is not None:
            joined.mul_(self.shares)
        self.project_output(joined)

    def _normalize_and_rotate(self, heads: QKVBuffer, num_appended: int) -> None:
        """Normalizes and rotates queries and keys, in place."""
        both = heads.queries_keys
        if self.normalizes:
            both.div_(torch.linalg.vector_norm(both, dim=-1, keepdim=True).clamp_min_(SMALLEST_NORM))
        if self.sines:
            first, second = heads.halves
            swapped = torch.cat((second, first), dim=-1)
            both.mul_(self.cosines[num_appended]).addcmul_(swapped, self.sines[num_appended])
        elif self.cosines:
            both.mul_(self.cosines[num_appended])

    def _bias(self, scale: int, span: VisibleSpan) -> Tensor:
        """Returns the position bias (B or 1, H, 1, N) of a scale, -inf where a row has no token."""
        assert self.position_bias is not None
        if self.biases.shape[-1] < span.visible:  # without a window, twice as many as needed now
            distances = max(window or 2 * span.visible for window in self.windows) + 1
            biases = self.position_bias(distances).T.flip(1)  # (G H, distances), the farthest first
            self.biases = biases.reshape(len(self.windows), 1, -1, 1, distances)
        bias = self.biases[scale][..., -span.visible :]
        return bias if span.exists is None else bias.masked_fill(~span.exists, float("-inf"))


def _rotation_tables(
    attention: MultiScaleAttention, *, capacity: int
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Computes cosines and signed sines, times the gains, for the query and the key at each cache slot.

    Returns:
        `capacity` tensors (2, G, 1, d) each. Without a rotation there are no sines and the cosines are the
        gains; without gains either, both are empty.
    """
    gains = None
    if attention.query_gain is not None and attention.key_gain is not None:
        gains = torch.stack((attention.query_gain, attention.key_gain))  # (2, G, d)
    tables = [
        rotation.tables(0, capacity, like=attention.qkv.weight)
        for rotation in attention.rotations
        if rotation
    ]
    if not tables:
        return ([] if gains is None else [gains[:, :, None]] * capacity), []
    parts = [torch.stack(part, dim=1) for part in zip(*tables, strict=True)]  # each (capacity, G, d)
    cosines, sines = torch.stack(parts[0::2], dim=1), torch.stack(parts[1::2], dim=1)
    if gains is not None:
        cosines, sines = cosines * gains, sines * gains.roll(attention.head_dim // 2, dims=-1)
    return cosines[:, :, :, None].unbind(0), sines[:, :, :, None].unbind(0)
