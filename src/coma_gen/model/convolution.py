"""The conformer's convolution module, causal (Gulati et al. 2020, arXiv 2005.08100).

Tensors are (batch, token, channel), so the pointwise convolutions are linear layers and the channel norm is a
layer norm. On a CPU the depthwise convolution is a channels-last `conv2d`, several times faster than `conv1d`
on a transposed copy, with hand-written gradients: torch's own weight gradient takes up to a hundred times as
long as the forward pass. Code compiled for a GPU sums the taps.

Shapes: B batch, T tokens, D model dim, C inner channels, K kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from coma_gen.model.cache import ConvCache, zeros

GRADIENT_BLOCK = 32
"""Tokens per block in the gradient of the depthwise weight."""


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: int = 0) -> Tensor:
    """Convolves `x` (B, N, C) with one kernel per channel, `weight` (C, K): (B, N - K + 1 + 2 padding, C)."""
    image = x.unsqueeze(1).permute(0, 3, 1, 2)  # (B, C, 1, N), channels last in memory
    kernels = weight[:, None, None, :]
    result = F.conv2d(image, kernels, bias, groups=weight.shape[0], padding=(0, padding))
    return result.permute(0, 2, 3, 1).squeeze(1)


def _weight_gradient(x: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    """Computes the gradient of the kernels (C, K) from `x` (B, T + K - 1, C) and `gradient` (B, T, C).

    Per channel it is sum_t gradient[t] x[t + k]. With blocks of Q tokens, this is one matrix product per
    channel of x (Q + K - 1 rows) and gradient (Q columns), whose entry (q + k, q) belongs to tap k:

        q:    0  1  2
        row 0 k0
        row 1 k1 k0
        row 2 k2 k1 k0
        row 3    k2 k1
        row 4       k2
    """
    batch, length, channels = gradient.shape
    size = min(GRADIENT_BLOCK, length)
    missing = -length % size
    if missing:
        x, gradient = F.pad(x, (0, 0, 0, missing)), F.pad(gradient, (0, 0, 0, missing))
    by_channel = x.flatten(0, 1).t().contiguous().view(channels, batch, -1)  # (C, B, T + K - 1)
    inputs = (
        by_channel.unfold(2, size + kernel - 1, size).flatten(1, 2).contiguous()
    )  # (C, blocks, Q + K - 1)
    outputs = gradient.flatten(0, 1).t().contiguous().view(channels, -1, size)  # (C, blocks, Q)
    products = torch.bmm(inputs.mT, outputs)  # (C, Q + K - 1, Q)
    diagonals = products.as_strided((channels, kernel, size), (products.stride(0), size, size + 1))
    return diagonals.sum(-1)


class _DepthwiseConvolution(torch.autograd.Function):
    """`_depthwise` with gradients that are fast on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _depthwise(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        kernel = weight.shape[1]
        with torch.autocast(x.device.type, enabled=False):
            gradient = gradient.contiguous()
            x_gradient = _depthwise(gradient, weight.flip(1), padding=kernel - 1)
            return x_gradient, _weight_gradient(x, gradient, kernel), gradient.sum((0, 1))


def _taps(x: Tensor, weight: Tensor) -> Tensor:
    """Computes `_depthwise` as a sum over taps, (B, N, C) and (C, K) -> (B, N - K + 1, C)."""
    kernel = weight.shape[1]
    length = x.shape[1] - kernel + 1
    result = x[:, :length] * weight[:, 0]
    for tap in range(1, kernel):
        result = result + x[:, tap : tap + length] * weight[:, tap]
    return result


class _TapsFn(torch.autograd.Function):
    """`_depthwise` and its gradients as sums over taps, each of which a compiler fuses into one pass.

    Used on GPUs, which have no fast depthwise kernel. Uncompiled it takes K passes over memory. Sums are at
    least float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        exact = x.to(torch.promote_types(x.dtype, weight.dtype))
        convolved = _taps(exact, weight) + bias
        # torch 2.11 compiles a last conversion that changes nothing into gradients of zero.
        return convolved if convolved.dtype == x.dtype else convolved.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        kernel, length = weight.shape[1], gradient.shape[1]
        exact, incoming = (part.to(torch.promote_types(part.dtype, weight.dtype)) for part in (x, gradient))
        around = F.pad(incoming, (0, 0, kernel - 1, kernel - 1))
        parts = [(incoming * exact[:, tap : tap + length]).sum((0, 1)) for tap in range(kernel)]
        x_gradient = _taps(around, weight.flip(1)).to(x.dtype)
        return x_gradient, torch.stack(parts, dim=1), incoming.sum((0, 1))


class CausalConvolution(nn.Module):
    """LayerNorm, pointwise, GLU, causal depthwise, swish, channel norm, pointwise, dropout.

    Args:
        dim: D.
        expansion: C / D.
        kernel_size: K; an output depends on the current token and the K - 1 tokens before it.
        dropout: Dropout probability of the output.
    """

    def __init__(self, *, dim: int, expansion: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.channels, self.kernel_size = expansion * dim, kernel_size
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * self.channels)
        self.depthwise_weight = nn.Parameter(torch.empty(self.channels, kernel_size))
        self.depthwise_bias = nn.Parameter(torch.empty(self.channels))
        bound = kernel_size**-0.5
        nn.init.uniform_(self.depthwise_weight, -bound, bound)
        nn.init.uniform_(self.depthwise_bias, -bound, bound)
        self.channel_norm = nn.LayerNorm(self.channels, bias=False)
        self.contract = nn.Linear(self.channels, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        state: Sequence[ConvCache] = (),
        lengths: Sequence[int] = (),  # noqa: ARG002
    ) -> Tensor:
        """Convolves a chunk (B, T, D) and the cached inputs before it, and updates the cache.

        Args:
            x: Input chunk.
            state: One cache; empty if the chunk is the whole sequence.
            lengths: Unused, since inputs before a row's first token are zeros; other branches need it.

        Returns:
            (B, T, D).
        """
        inputs = F.glu(self.expand(self.norm(x)), dim=-1)
        extended = state[0].extend(inputs) if state else F.pad(inputs, (0, 0, self.kernel_size - 1, 0))
        with torch.autocast(x.device.type, enabled=False):
            convolved = self._convolve(extended)
        result: Tensor = self.dropout(self.contract(self.channel_norm(F.silu(convolved))))
        return result

    def init_cache(self, batch: int, *, capacity: int) -> list[ConvCache]:
        """Creates an empty cache for `batch` rows."""
        history = self.kernel_size - 1
        return [ConvCache(zeros(self.depthwise_weight, batch, history + capacity, self.channels), history)]

    def _convolve(self, extended: Tensor) -> Tensor:
        """Applies the depthwise convolution, (B, T + K - 1, C) -> (B, T, C)."""
        if torch.compiler.is_compiling():
            fused: Tensor = _TapsFn.apply(extended, self.depthwise_weight, self.depthwise_bias)  # type: ignore[no-untyped-call]
            return fused
        weight, bias = self.depthwise_weight.to(extended.dtype), self.depthwise_bias.to(extended.dtype)
        if extended.device.type == "cpu":
            convolved: Tensor = _DepthwiseConvolution.apply(extended, weight, bias)  # type: ignore[no-untyped-call]
            return convolved
        channels = extended.shape[-1]
        return F.conv1d(extended.transpose(1, 2), weight[:, None], bias, groups=channels).transpose(1, 2)
