"""Hyper-connections: residual streams that are mixed for every token (Zhu et al. 2024, arXiv 2409.19606).

Per token, with streams R (S, D) and coefficients C (S, S + 2) = static + tanh(RMSNorm(R) dynamic) x
dynamic_scale:

    branch input   C[:, 0]^T R                    which streams the branch reads
    carried        C[:, 1 : S + 1]^T R            how the streams mix
    streams        carried + C[:, S + 1] branch   where its output goes

At the start the dynamic part is zero, the branch reads one stream, the streams do not mix and the output goes
to all of them. The work is bound by memory, so every pass over (B, T, S, D) counts: RMSNorm is never written
out (its factor is applied after the product with `dynamic`), and the gradient is worked out by hand in as few
passes as it needs.

Shapes: N tokens of the batch (B x T), S streams, D dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

INITIAL_DYNAMIC_SCALE = 0.01
"""Share of the dynamic coefficients at the start."""

SMALLEST_NORM = 1e-12
"""Streams shorter than this are divided by this."""


class Branch(Protocol):
    """What a hyper-connection wraps: (B, T, D) -> (B, T, D)."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """The branch's output."""
        ...


class _HyperConnectionFn(torch.autograd.Function):
    """Branch input, carried streams and output weights, from the streams.

    With z = (R W) / |R|, t = tanh(z), C = static + t x scale and incoming gradients dx, dcarried, dbeta:

        dC      = [R dx^T | R dcarried^T | dbeta]
        dz      = dC x scale x (1 - t^2)
        dR      = C[:, 0] dx + C[:, 1:S+1] dcarried + (dz / |R|) W^T - R (sum dz z) / |R|^2
        dW      = R^T (dz / |R|),   dstatic = sum dC,   dscale = sum dC x t
    """

    @staticmethod
    def forward(
        ctx: Any, streams: Tensor, weight: Tensor, static: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mixes.

        Args:
            ctx: for the gradient.
            streams: (N, S, D).
            weight: (D, S + 2), `dynamic` with RMSNorm's gain and sqrt(D) folded in.
            static: (S, S + 2).
            scale: (S + 2,).

        Returns:
            Branch input (N, 1, D), carried streams (N, S, D), output weights (N, S, 1).
        """
        norm = torch.linalg.vector_norm(streams, dim=-1, keepdim=True)
        inverse = norm.clamp_min_(SMALLEST_NORM).reciprocal_()
        inner = (streams @ weight).mul_(inverse)
        coefficients = torch.addcmul(static, inner.tanh(), scale)
        read, mix, beta = torch.split(coefficients, [1, streams.shape[1], 1], dim=-1)
        ctx.save_for_backward(streams, weight, scale, inverse, inner, coefficients)
        return torch.bmm(read.mT, streams), torch.bmm(mix.mT, streams), beta.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, branch_in: Tensor, carried: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        streams, weight, scale, inverse, inner, coefficients = ctx.saved_tensors
        squashed = inner.tanh()
        read, mix, _ = torch.split(coefficients, [1, streams.shape[1], 1], dim=-1)
        with torch.autocast(streams.device.type, enabled=False):
            direct = torch.cat(
                (torch.bmm(streams, branch_in.mT), torch.bmm(streams, carried.mT), beta), dim=-1
            )
            static_gradient, scale_gradient = direct.sum(0), (direct * squashed).sum((0, 1))
            dynamic = direct * scale * (1 - squashed.square())
            radial = (dynamic * inner).sum(-1, keepdim=True).mul_(inverse).mul_(inverse)
            dynamic.mul_(inverse)
            gradient = torch.bmm(mix, carried).baddbmm_(read, branch_in)
            flat = gradient.view(-1, gradient.shape[-1])
            flat.addmm_(dynamic.flatten(0, 1), weight.t())
            gradient.addcmul_(streams, radial, value=-1)
            weight_gradient = streams.flatten(0, 1).t() @ dynamic.flatten(0, 1)
        return gradient, weight_gradient, static_gradient, scale_gradient


def _read_streams(streams: Tensor, weight: Tensor, static: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """`_HyperConnectionFn` as a formula, for a compiler to fuse; uncompiled it takes five times as long."""
    inverse = streams.square().sum(-1, keepdim=True).clamp_min(SMALLEST_NORM**2).rsqrt()
    coefficients = static + ((streams @ weight) * inverse).tanh() * scale
    mixed = (coefficients[:, :, :-1, None] * streams[:, :, None]).sum(1)
    return mixed[:, :1], mixed[:, 1:], coefficients[:, :, -1:]


class HyperConnection(nn.Module):
    """Wraps one branch in S residual streams; S = 1 is the plain residual x + branch(x), without parameters.

    Args:
        dim: D.
        num_streams: S.
        first_stream: the stream that the branch reads at the start, in [0, S).
    """

    def __init__(self, *, dim: int, num_streams: int, first_stream: int) -> None:
        super().__init__()
        self.num_streams, self.first_stream = num_streams, first_stream
        if num_streams == 1:
            return
        self.gain = nn.Parameter(torch.empty(dim))
        self.dynamic = nn.Parameter(torch.empty(dim, num_streams + 2))
        self.static = nn.Parameter(torch.empty(num_streams, num_streams + 2))
        self.dynamic_scale = nn.Parameter(torch.empty(2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the start described above; nothing of it is random."""
        if self.num_streams == 1:
            return
        with torch.no_grad():
            self.gain.fill_(1.0)
            self.dynamic.zero_()
            self.dynamic_scale.fill_(INITIAL_DYNAMIC_SCALE)
            self.static.zero_()
            self.static[self.first_stream, 0] = 1.0
            self.static[:, 1 : self.num_streams + 1].fill_diagonal_(1.0)
            self.static[:, -1] = 1.0

    def forward(self, streams: Tensor, branch: Branch) -> Tensor:
        """Streams (B, T, S, D) before the branch -> after it. They keep their precision under autocast."""
        if self.num_streams == 1:
            return streams + branch(streams[:, :, 0])[:, :, None]
        batch, length, count, dim = streams.shape
        with torch.autocast(streams.device.type, enabled=False):
            weight = self.dynamic * (self.gain * dim**0.5)[:, None]
            scale = torch.cat((self.dynamic_scale[:1].expand(count + 1), self.dynamic_scale[1:]))
            mix: Callable[..., tuple[Tensor, ...]] = (
                _read_streams if torch.compiler.is_compiling() else _HyperConnectionFn.apply
            )
            read, carried, beta = mix(streams.flatten(0, 1), weight, self.static, scale)
        output = branch(read.view(batch, length, dim))
        with torch.autocast(streams.device.type, enabled=False):
            output = output.to(carried.dtype).reshape(-1, 1, dim)
            if torch.compiler.is_compiling():
                written = carried + beta * output
            else:
                written = carried.baddbmm_(beta, output)
        return written.view(batch, length, count, dim)
