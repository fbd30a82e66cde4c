"""Multi-scale local attention: one attention whose groups of heads have different windows.

Each scale has its own queries, keys, values and output projection, and the outputs are summed with learned
weights. All scales share one fused input projection and one fused output projection with the weights folded
in. QK normalization follows Henry et al. 2020 (arXiv 2010.04245) with a fixed softmax scale of 8.

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
from coma_gen.model.local_attention import learn_local_attention, local_attention
from coma_gen.model.positions import POSITIONS, Rotation, turn_whole

if TYPE_CHECKING:
    from coma_gen.model.flex_attention import FlexBand

QK_NORM_SCALE = 8.0
"""Softmax scale of normalized queries and keys, instead of 1 / sqrt(d)."""

SMALLEST_NORM = 1e-12
"""Queries and keys shorter than this are divided by this."""


class MultiScaleAttention(nn.Module):
    """Pre-norm attention over one or more windows; with the single window None, plain causal attention.

    Args:
        dim: D.
        num_heads: H, heads of each scale.
        head_dim: d.
        window_sizes: tokens that each scale sees before the current one; None sees all.
        position: a name in `POSITIONS`.
        qk_rmsnorm: normalize queries and keys.
        dropout: of the attention weights, in training.
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
        """Sets what starts at a fixed value: equal scale weights, gains of one."""
        if self.scale_weights is not None:
            nn.init.zeros_(self.scale_weights)
        for gain in (self.query_gain, self.key_gain):
            if gain is not None:
                nn.init.ones_(gain)

    def forward(self, x: Tensor, state: Sequence[KVCache] = (), lengths: Sequence[int] = ()) -> Tensor:
        """Attends from a chunk (B, T, D) to itself and to what `state`, one entry a scale, remembers of the
        `lengths` tokens that each row had; updates it.

        Returns:
            (B, T, D).
        """
        is_whole = not state and self._turns_at_once(x.shape[1])
        queries, keys, values = self.project(x, turned=is_whole)
        if is_whole and self.flex is not None and torch.compiler.is_compiling():
            biases = None if self.position_bias is None else self.position_bias(x.shape[1])
            return self._joined(self.flex(_scales(queries), _scales(keys), _scales(values), biases))
        if is_whole and self._learns_in_bands(queries):
            windows = cast("Sequence[int]", self.window_sizes)
            return self._joined(
                learn_local_attention(
                    queries, keys, values, windows=windows, softmax_scale=self.softmax_scale
                )
            )
        kv = [KeysValues(key, value) for key, value in zip(_scales(keys), _scales(values), strict=True)]
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
                _scales(queries), kv, self.window_sizes, self.rotations, self._biases(kv), strict=True
            )
        ]
        return self._joined(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2))

    def init_cache(self, batch: int, *, room: int) -> list[KVCache]:
        """The cache of `batch` rows before their first token, one entry a scale."""
        return [
            KVCache.empty(
                batch=batch,
                num_heads=self.num_heads,
                head_dim=self.head_dim,
                room=room,
                window=window,
                rotation=rotation,
                like=self.qkv.weight,
            )
            for window, rotation in zip(self.window_sizes, self.rotations, strict=True)
        ]

    def project(self, x: Tensor, *, turned: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, T, G, H, d); turned by their positions or not yet."""
        scales = len(self.window_sizes)
        fused = self.qkv(self.norm(x)).unflatten(2, (3, scales, self.num_heads, self.head_dim))
        both, values = fused.split([2, 1], dim=2)
        if self.query_gain is not None and self.key_gain is not None:
            both = _normalized(both, torch.stack((self.query_gain, self.key_gain))[:, :, None])
        rotations = [rotation for rotation in self.rotations if rotation is not None]
        if turned and rotations:
            both = turn_whole(both, rotations)
        queries, keys = both.to(values.dtype).unbind(2)
        return queries, keys, values.squeeze(2)

    def _learns_in_bands(self, queries: Tensor) -> bool:
        """Whether these queries of a whole sequence are to learn on a CPU, without dropout or biases."""
        is_plain = self.position_bias is None and None not in self.window_sizes
        is_exact = self.dropout == 0 or not self.training
        return is_plain and is_exact and queries.device.type == "cpu" and queries.requires_grad

    def _joined(self, attended: Tensor) -> Tensor:
        """(B, T, D) from what all heads have attended to, (B, T, *) in the order (G, H, d)."""
        return F.linear(attended.flatten(2), self._out_weight())

    def _turns_at_once(self, length: int) -> bool:
        """Whether a sequence of this length can be turned about one origin."""
        return all(rotation is None or length <= rotation.max_queries for rotation in self.rotations)

    @property
    def longest_turn(self) -> int | None:
        """Tokens that can be turned about one origin; None for any number."""
        return min((rotation.max_queries for rotation in self.rotations if rotation), default=None)

    def _biases(self, kv: list[KeysValues]) -> list[Tensor | None]:
        """The bias table (distances, H) of each scale, or None."""
        if self.position_bias is None:
            return [None] * len(kv)
        longest = [scale.keys.shape[2] for scale in kv]
        visible = [n if w is None else min(n, w + 1) for n, w in zip(longest, self.window_sizes, strict=True)]
        table = self.position_bias(max(visible))
        return [part[:n] for part, n in zip(table.split(self.num_heads, dim=1), visible, strict=True)]

    def _out_weight(self) -> Tensor:
        """The output projection (D, G H d) with each scale's share folded in."""
        if self.scale_weights is None:
            return self.out.weight
        shares = self.scale_weights.softmax(dim=0)
        return self.out.weight * shares.repeat_interleave(self.num_heads * self.head_dim)


def _normalized(x: Tensor, gain: Tensor) -> Tensor:
    """Every vector of `x` (..., d) at length one, times the gains (broadcast); in float32 or better."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    if torch.compiler.is_compiling():
        return exact * exact.square().sum(-1, keepdim=True).clamp_min(SMALLEST_NORM**2).rsqrt() * gain
    normalized: Tensor = _QKNormFn.apply(exact, gain)  # type: ignore[no-untyped-call]
    return normalized


class _QKNormFn(torch.autograd.Function):
    """x / |x| * gain, with its gradient in few passes; the gains broadcast to x.

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


def _scales(parts: Tensor) -> list[Tensor]:
    """(B, T, G, H, d) as the parts of each scale, each (B, H, T, d)."""
    return [part.transpose(1, 2) for part in parts.unbind(2)]
