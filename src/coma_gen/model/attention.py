"""Multi-scale local attention: groups of heads with different window sizes.

Each scale has its own queries, keys, values and output projection; the outputs are summed with learned
weights. The projections of all scales are fused into one input and one output projection, with the learned
weights folded into the latter. QK normalization follows Henry et al. 2020 (arXiv 2010.04245) with a fixed
softmax scale of 8.

Shapes: B batch, T tokens of the chunk, D model dim, G scales, H heads of a scale, d head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from coma_gen.model.cache import KeysValues, KVCache
from coma_gen.model.local_attention import local_attention, local_attention_for_training
from coma_gen.model.positions import POSITIONS, Rotation, rotate_sequences

if TYPE_CHECKING:
    from coma_gen.model.flex_attention import FlexBand

QK_NORM_SCALE = 8.0
"""Softmax scale for normalized queries and keys, in place of 1 / sqrt(d)."""

SMALLEST_NORM = 1e-12
"""Lower bound of the norm that queries and keys are divided by."""


class MultiScaleAttention(nn.Module):
    """Pre-norm attention with one or more windows; the single window None gives full causal attention.

    Args:
        dim: D.
        num_heads: H, heads per scale.
        head_dim: D.
        window_sizes: Number of previous tokens visible to each scale; None for all.
        position: A key of `POSITIONS`.
        qk_rmsnorm: Whether to normalize queries and keys.
        dropout: Dropout probability of the attention weights.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        head_dim: int,
        window_sizes: tuple[int | None, ...],
        position: str,
        qk_rmsnorm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        scales, width = len(window_sizes), num_heads * head_dim
        self.num_heads, self.head_dim, self.window_sizes, self.dropout = (
            num_heads,
            head_dim,
            window_sizes,
            dropout,
        )
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * scales * width, bias=False)
        self.out = nn.Linear(scales * width, dim, bias=False)
        self.scale_weights = nn.Parameter(torch.empty(scales)) if scales > 1 else None
        self.query_gain = nn.Parameter(torch.empty(scales, head_dim)) if qk_rmsnorm else None
        self.key_gain = nn.Parameter(torch.empty(scales, head_dim)) if qk_rmsnorm else None
        self.softmax_scale = QK_NORM_SCALE if qk_rmsnorm else head_dim**-0.5
        rotate, bias = POSITIONS[position].rotation, POSITIONS[position].bias
        self.rotations: list[Rotation | None] = [
            None if rotate is None else rotate(head_dim, window) for window in window_sizes
        ]
        self.position_bias = None if bias is None else bias(scales * num_heads, dim)
        self.flex: FlexBand | None = None
        self.reset_gains()

    def reset_gains(self) -> None:
        """Resets the scale weights to equal values and the gains to one."""
        if self.scale_weights is not None:
            nn.init.zeros_(self.scale_weights)
        for gain in (self.query_gain, self.key_gain):
            if gain is not None:
                nn.init.ones_(gain)

    def forward(self, x: Tensor, state: Sequence[KVCache] = (), lengths: Sequence[int] = ()) -> Tensor:
        """Attends from a chunk (B, T, D) to itself and to the cached tokens, and updates the cache.

        Args:
            x: Input chunk.
            state: One KV cache per scale; empty if the chunk is the whole sequence.
            lengths: Number of tokens that each row processed before.

        Returns:
            (B, T, D).
        """
        is_whole = not state and self._fits_one_origin(x.shape[1])
        queries, keys, values = self.project(x, rotate=is_whole)
        if is_whole and self.flex is not None and torch.compiler.is_compiling():
            biases = None if self.position_bias is None else self.position_bias(x.shape[1])
            attended = self.flex(_split_scales(queries), _split_scales(keys), _split_scales(values), biases)
            return self._project_output(attended)
        if is_whole and self._needs_cpu_gradient(queries):
            windows = cast("Sequence[int]", self.window_sizes)
            return self._project_output(
                local_attention_for_training(
                    queries, keys, values, windows=windows, softmax_scale=self.softmax_scale
                )
            )
        pairs = zip(_split_scales(keys), _split_scales(values), strict=True)
        kv = [KeysValues(key, value) for key, value in pairs]
        if state:
            kv = [
                layer_cache.extend(new.keys, new.values, lengths=lengths)
                for layer_cache, new in zip(state, kv, strict=True)
            ]
        parts = [
            local_attention(
                query.to(scale.values.dtype),
                scale.keys.to(scale.values.dtype),
                scale.values,
                window=window,
                padding=scale.padding,
                rotation=None if is_whole else rotation,
                biases=bias,
                softmax_scale=self.softmax_scale,
                dropout=self.dropout if self.training else 0.0,
            )
            for query, scale, window, rotation, bias in zip(
                _split_scales(queries),
                kv,
                self.window_sizes,
                self.rotations,
                self._compute_biases(kv),
                strict=True,
            )
        ]
        return self._project_output(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2))

    def init_cache(self, batch: int, *, capacity: int) -> list[KVCache]:
        """Creates an empty KV cache per scale for `batch` rows."""
        return [
            KVCache.empty(
                batch=batch,
                num_heads=self.num_heads,
                head_dim=self.head_dim,
                capacity=capacity,
                window=window,
                rotation=rotation,
                like=self.qkv.weight,
            )
            for window, rotation in zip(self.window_sizes, self.rotations, strict=True)
        ]

    def project(self, x: Tensor, *, rotate: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values, each (B, T, G, H, d), with rotary positions if `rotate`."""
        scales = len(self.window_sizes)
        fused = self.qkv(self.norm(x)).unflatten(2, (3, scales, self.num_heads, self.head_dim))
        both, values = fused.split([2, 1], dim=2)
        if self.query_gain is not None and self.key_gain is not None:
            both = _normalize(both, torch.stack((self.query_gain, self.key_gain))[:, :, None])
        rotations = [rotation for rotation in self.rotations if rotation is not None]
        if rotate and rotations:
            both = rotate_sequences(both, rotations)
        queries, keys = both.to(values.dtype).unbind(2)
        return queries, keys, values.squeeze(2)

    def _needs_cpu_gradient(self, queries: Tensor) -> bool:
        """Whether to use `local_attention_for_training`: gradients on a CPU, no dropout and no biases."""
        is_plain = self.position_bias is None and None not in self.window_sizes
        is_exact = self.dropout == 0 or not self.training
        return is_plain and is_exact and queries.device.type == "cpu" and queries.requires_grad

    def _project_output(self, attended: Tensor) -> Tensor:
        """Projects the outputs of all heads, (B, T, *) in the order (G, H, d), to (B, T, D)."""
        return F.linear(attended.flatten(2), self._fold_out_weight())

    def _fits_one_origin(self, length: int) -> bool:
        """Whether a sequence of this length can be rotated about one origin."""
        return all(rotation is None or length <= rotation.max_queries for rotation in self.rotations)

    @property
    def max_rotated_length(self) -> int | None:
        """Maximum number of tokens that can be rotated about one origin; None for any number."""
        return min((rotation.max_queries for rotation in self.rotations if rotation), default=None)

    def _compute_biases(self, kv: list[KeysValues]) -> list[Tensor | None]:
        """Returns the bias table (distances, H) of each scale, or None."""
        if self.position_bias is None:
            return [None] * len(kv)
        longest = [scale.keys.shape[2] for scale in kv]
        visible = [n if w is None else min(n, w + 1) for n, w in zip(longest, self.window_sizes, strict=True)]
        table = self.position_bias(max(visible))
        return [part[:n] for part, n in zip(table.split(self.num_heads, dim=1), visible, strict=True)]

    def _fold_out_weight(self) -> Tensor:
        """Returns the output projection (D, G H d) with the weights of the scales folded in."""
        if self.scale_weights is None:
            return self.out.weight
        shares = self.scale_weights.softmax(dim=0)
        return self.out.weight * shares.repeat_interleave(self.num_heads * self.head_dim)


def _normalize(x: Tensor, gain: Tensor) -> Tensor:
    """Scales each vector of `x` (..., d) to unit norm times the broadcast gain, in at least float32."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    if torch.compiler.is_compiling():
        return exact * exact.square().sum(-1, keepdim=True).clamp_min(SMALLEST_NORM**2).rsqrt() * gain
    normalized: Tensor = _QKNormFn.apply(exact, gain)  # type: ignore[no-untyped-call]
    return normalized


class _QKNormFn(torch.autograd.Function):
    """x / |x| * gain (broadcast to x), with a gradient that takes few passes over memory.

    With u = x / |x| and g the incoming gradient times the gain, dx = (g - u (u . g)) / |x|.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(SMALLEST_NORM).reciprocal_()
        unit = torch.mul(x, inverse, out=x.new_empty(x.shape))
        ctx.save_for_backward(unit, inverse, gain)
        result: Tensor = unit * gain
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        unit, inverse, gain = ctx.saved_tensors
        product = gradient * unit
        gain_gradient = product.sum_to_size(gain.shape)
        along = product.mul_(gain).sum(-1, keepdim=True)
        inner = torch.mul(gradient, gain, out=product).addcmul_(unit, along, value=-1)
        return inner.mul_(inverse), gain_gradient


def _split_scales(heads: Tensor) -> list[Tensor]:
    """Splits (B, T, G, H, d) into G tensors (B, H, T, d)."""
    return [part.transpose(1, 2) for part in heads.unbind(2)]
