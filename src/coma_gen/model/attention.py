"""Multi-scale local attention: one attention whose groups of heads have different windows.

Each scale has its own queries, keys, values and output projection, and the outputs are summed with learned
weights. All scales share one fused input projection and one fused output projection with the weights folded
in. QK normalisation follows Henry et al. 2020 (arXiv 2010.04245) with a fixed softmax scale of 8.

Shapes: B batch, T tokens of the chunk, D model dim, G scales, H heads of a scale, d head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from coma_gen.model.bands import banded_attention
from coma_gen.model.positions import GLOBAL_DECAY_BASE, DynamicPositionBias, Rotation
from coma_gen.model.state import KeyValues

QK_NORM_SCALE = 8.0
"""Softmax scale of normalised queries and keys, instead of 1 / sqrt(d)."""

SMALLEST_NORM = 1e-12
"""Queries and keys shorter than this are divided by this."""


class MultiScaleAttention(nn.Module):
    """Pre-norm attention over one or more windows; with the single window None, plain causal attention.

    Args:
        dim: D.
        num_heads: H, heads of each scale.
        head_dim: d.
        window_sizes: tokens that each scale sees before the current one; None sees all.
        position: "xpos" (decay base half the window), "rotary", "dynamic" or "none".
        qk_rmsnorm: normalise queries and keys.
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
        self.rotations: list[Rotation | None] = [
            Rotation(head_dim, decay_base(window) if position == "xpos" else None)
            if position in ("xpos", "rotary")
            else None
            for window in window_sizes
        ]
        self.position_bias = (
            DynamicPositionBias(num_heads=scales * num_heads, hidden_dim=max(8, dim // 4))
            if position == "dynamic"
            else None
        )
        self.reset_gains()

    def reset_gains(self) -> None:
        """Sets what starts at a fixed value: equal scale weights, gains of one."""
        if self.scale_weights is not None:
            nn.init.zeros_(self.scale_weights)
        for gain in (self.query_gain, self.key_gain):
            if gain is not None:
                nn.init.ones_(gain)

    def forward(self, x: Tensor, state: list[KeyValues] | None = None) -> Tensor:
        """Attends from a chunk (B, T, D) to itself and to what `state`, one entry a scale, remembers; moves
        it on.

        Returns:
            (B, T, D).
        """
        queries, keys, values = self._project(x)
        seen = [KeyValues(key, value, ()) for key, value in zip(keys, values, strict=True)]
        if state is not None:
            seen = [
                kept.extend(new.keys, new.values, window=window)
                for kept, new, window in zip(state, seen, self.window_sizes, strict=True)
            ]
        attended = [
            banded_attention(
                query.to(scale.values.dtype),
                scale.keys.to(scale.values.dtype),
                scale.values,
                window=window,
                padding=scale.padding,
                rotation=rotation,
                biases=bias,
                softmax_scale=self.softmax_scale,
                dropout=self.dropout if self.training else 0.0,
            )
            for query, scale, window, rotation, bias in zip(
                queries, seen, self.window_sizes, self.rotations, self._biases(seen), strict=True
            )
        ]
        heads = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
        return F.linear(heads.flatten(2), self._out_weight())

    def _project(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Queries, keys and values of each scale, each (B, H, T, d) and contiguous."""
        scales = len(self.window_sizes)
        fused = self.qkv(self.norm(x))
        parts = rearrange(fused, "b t (qkv g h d) -> qkv g b h t d", qkv=3, g=scales, h=self.num_heads)
        queries, keys, values = (list(part.unbind(0)) for part in parts.contiguous().unbind(0))
        if self.query_gain is not None and self.key_gain is not None:
            queries = [
                _normalised(part, gain) for part, gain in zip(queries, self.query_gain.unbind(0), strict=True)
            ]
            keys = [_normalised(part, gain) for part, gain in zip(keys, self.key_gain.unbind(0), strict=True)]
        return queries, keys, values

    def _biases(self, seen: list[KeyValues]) -> list[Tensor | None]:
        """The bias table (distances, H) of each scale, or None."""
        if self.position_bias is None:
            return [None] * len(seen)
        longest = [scale.keys.shape[2] for scale in seen]
        visible = [n if w is None else min(n, w + 1) for n, w in zip(longest, self.window_sizes, strict=True)]
        table = self.position_bias(max(visible))
        return [part[:n] for part, n in zip(table.split(self.num_heads, dim=1), visible, strict=True)]

    def _out_weight(self) -> Tensor:
        """The output projection (D, G H d) with each scale's share folded in."""
        if self.scale_weights is None:
            return self.out.weight
        shares = self.scale_weights.softmax(dim=0)
        return self.out.weight * shares.repeat_interleave(self.num_heads * self.head_dim)


def decay_base(window: int | None) -> float:
    """The xPos decay base of a scale, in tokens."""
    return GLOBAL_DECAY_BASE if window is None else window / 2


def _normalised(x: Tensor, gain: Tensor) -> Tensor:
    """Every vector of `x` (..., d) at length one, times the gains (d,); in float32 or better."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    normalised: Tensor = _Normalisation.apply(exact, gain)  # type: ignore[no-untyped-call]
    return normalised


class _Normalisation(torch.autograd.Function):
    """x / |x| * gain, with its gradient in few passes.

    With u = x / |x| and g the incoming gradient times the gain, dx = (g - u (u . g)) / |x|.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(SMALLEST_NORM).reciprocal_()
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, gain)
        result: Tensor = unit * gain
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        unit, inverse, gain = ctx.saved_tensors
        product = gradient * unit
        gain_gradient = product.sum_to_size(gain.shape)
        along = (product * gain).sum(-1, keepdim=True)
        return (gradient * gain).addcmul_(unit, along, value=-1).mul_(inverse), gain_gradient
