"""Hyper-connections: residual streams with input-dependent mixing (Zhu et al. 2024, arXiv 2409.19606).

Per token, with streams R (S, D) and coefficients C (S, S + 2) = static + tanh(RMSNorm(R) dynamic) x
dynamic_scale:

    branch input   C[:, 0]^T R                    weighted sum that the branch reads
    carried        C[:, 1 : S + 1]^T R            mixed streams
    streams        carried + C[:, S + 1] branch   mixed streams plus the weighted branch output

At initialization the dynamic part is zero, the branch reads one stream, the streams do not mix and the output
is added to all of them. The computation is memory-bound, so every pass over (B, T, S, D) counts: the
normalized streams are never materialized (RMSNorm's factor is applied after the product with `dynamic`), and
the hand-written gradient takes as few passes as possible.

Streams may be stored in bfloat16 to halve memory traffic (`train.streams`). They are then computed in float32
and rounded once, when a connection writes its streams; the same holds for their gradients.

Shapes: N tokens of the batch (B x T), S streams, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from coma_gen.model.portable import products_of

INITIAL_DYNAMIC_SCALE = 0.01
"""Initial scale of the dynamic coefficients."""

SMALLEST_NORM = 1e-12
"""Lower bound of the norm that streams are divided by."""


class Branch(Protocol):
    """A module wrapped by a hyper-connection: (B, T, D) -> (B, T, D)."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Applies the branch."""
        ...


class _ReadStreamsFn(torch.autograd.Function):
    """Computes branch input, carried streams and output weights from the streams.

    With W = sqrt(D) gain x dynamic, z = (R W) / |R|, t = tanh(z), C = static + t x scale and incoming
    gradients dx, dcarried, dbeta:

        dC      = [R dx^T | R dcarried^T | dbeta]
        dz      = dC x scale x (1 - t^2)
        dR      = C[:, 0] dx + C[:, 1:S+1] dcarried + (dz / |R|) W^T - R (sum dz z) / |R|^2
        dW      = R^T (dz / |R|),   dstatic = sum dC,   dscale = sum dC x t
    """

    @staticmethod
    def forward(
        ctx: Any, stored: Tensor, gain: Tensor, dynamic: Tensor, static: Tensor, dynamic_scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mixes the streams.

        Args:
            ctx: Autograd context.
            stored: (N, S, D) streams.
            gain: (D,).
            dynamic: (D, S + 2).
            static: (S, S + 2).
            dynamic_scale: (2,).

        Returns:
            Branch input (N, 1, D), carried streams (N, S, D), output weights (N, S, 1), at least float32.
        """
        streams = upcast(stored)
        products, count = products_of(streams), streams.shape[1]
        weight, scale = _fold_gain(gain, dynamic, dynamic_scale)
        inverse = torch.linalg.vector_norm(streams, dim=-1, keepdim=True)
        inverse.clamp_min_(SMALLEST_NORM).reciprocal_()
        inner = products.multiply(streams.flatten(0, 1), weight).view(-1, count, count + 2).mul_(inverse)
        squashed = inner.tanh()
        coefficients = torch.addcmul(static, squashed, scale)
        read, mix, beta = torch.split(coefficients, [1, count, 1], dim=-1)
        ctx.save_for_backward(stored, gain, dynamic, dynamic_scale, inverse, inner, squashed, coefficients)
        carried = products.multiply(mix.mT, streams)
        return products.multiply(read.mT, streams), carried, beta.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, branch_in: Tensor, carried: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        stored, gain, dynamic, dynamic_scale, inverse, inner, squashed, coefficients = ctx.saved_tensors
        streams = upcast(stored)
        products, count = products_of(streams), streams.shape[1]
        weight, scale = _fold_gain(gain, dynamic, dynamic_scale)
        with torch.autocast(streams.device.type, enabled=False):
            direct = torch.empty_like(coefficients)
            torch.sum(streams * branch_in, -1, keepdim=True, out=direct[:, :, :1])
            products.multiply_into(streams, carried.mT, out=direct[:, :, 1:-1])
            direct[:, :, -1:] = beta
            static_gradient, scale_gradient = direct.sum(0), (direct * squashed).sum((0, 1))
            change = direct.mul_(scale).mul_(squashed.square().neg_().add_(1))
            radial = (change * inner).sum(-1, keepdim=True).mul_(inverse).mul_(inverse)
            flat = change.mul_(inverse).flatten(0, 1)
            gradient = products.multiply(flat, weight.t()).view(streams.shape)
            gradient.addcmul_(streams, radial, value=-1).addcmul_(coefficients[:, :, :1], branch_in)
            gradient.add_(products.multiply(coefficients[:, :, 1:-1], carried))
            weight_gradient = products.multiply(flat.t(), streams.flatten(0, 1)).t()
            root = gain.numel() ** 0.5
            gain_gradient = (weight_gradient * dynamic).sum(1).mul_(root)
            dynamic_gradient = weight_gradient * (gain * root)[:, None]
            scale_gradient = torch.stack((scale_gradient[: count + 1].sum(), scale_gradient[-1]))
        return gradient.to(stored.dtype), gain_gradient, dynamic_gradient, static_gradient, scale_gradient


class _WriteStreamsFn(torch.autograd.Function):
    """Adds beta (N, S, 1) x branch output (N, 1, D) to the carried streams (N, S, D) in place."""

    @staticmethod
    def forward(ctx: Any, carried: Tensor, beta: Tensor, output: Tensor) -> Tensor:
        ctx.mark_dirty(carried)
        ctx.save_for_backward(beta, output)
        return carried.addcmul_(beta, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        beta, output = ctx.saved_tensors
        beta_gradient = (gradient * output).sum(-1, keepdim=True)
        return gradient, beta_gradient, products_of(gradient).multiply(beta.mT, gradient)


def upcast(streams: Tensor) -> Tensor:
    """Converts streams to at least float32, the precision of all computation on them."""
    return streams.to(torch.promote_types(streams.dtype, torch.float32))


def _fold_gain(gain: Tensor, dynamic: Tensor, dynamic_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Folds RMSNorm's gain and sqrt(D) into `dynamic` (D, S + 2); also returns the scale of each column."""
    reads = dynamic_scale[:1].expand(dynamic.shape[1] - 1)
    return dynamic * (gain * gain.numel() ** 0.5)[:, None], torch.cat((reads, dynamic_scale[1:]))


class _ProductsFn(torch.autograd.Function):
    """Matrix product of one stream (B, T, D) with `weight` (D, J), (B, T, J), as elementwise sums.

    A compiler fuses the sums with other readers of the stream. The weight's gradient is a matrix product with
    `stored`, the stream in its stored precision: with the upcast stream, the compiler would save that, too.
    """

    @staticmethod
    def forward(ctx: Any, stream: Tensor, weight: Tensor, stored: Tensor) -> Tensor:
        ctx.save_for_backward(stored, weight)
        return torch.stack([(stream * column).sum(-1) for column in weight.unbind(1)], dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        stored, weight = ctx.saved_tensors
        parts = zip(gradient.unbind(-1), weight.unbind(1), strict=True)
        stream_gradient = _sum([part[..., None] * column for part, column in parts])
        weight_gradient = stored.flatten(0, 1).t() @ gradient.flatten(0, 1).to(stored.dtype)
        return stream_gradient, weight_gradient.to(weight.dtype), None


class _FusedStreams:
    """`_ReadStreamsFn` and `_WriteStreamsFn` in terms of single streams, for a compiler to fuse.

    With separate streams a compiler fuses the reductions over D and everything computed from them into one
    pass. The carried streams are not materialized but recomputed when the branch output is added, in the same
    pass as the next connection's reading. Uncompiled this takes several times as long.

    Args:
        streams: (B, T, S, D).
        weight: (D, S + 2), from `_fold_gain`.
        scale: (S + 2,), from `_fold_gain`.
        static: (S, S + 2).
    """

    def __init__(self, streams: Tensor, weight: Tensor, scale: Tensor, static: Tensor) -> None:
        parts = streams.unbind(2)  # before the upcast: a compiler elides the first of two consecutive casts
        self.streams = [upcast(stored) for stored in parts]
        self.coefficients = []
        for stream, stored, start in zip(self.streams, parts, static.unbind(0), strict=True):
            inverse = stream.square().sum(-1, keepdim=True).clamp_min(SMALLEST_NORM**2).rsqrt()
            products: Tensor = _ProductsFn.apply(stream, weight, stored.detach())  # type: ignore[no-untyped-call]
            self.coefficients.append(start + (products * inverse).tanh() * scale)

    def read(self) -> Tensor:
        """Returns the branch input (B, T, D)."""
        return self._mix(0)

    def write(self, output: Tensor) -> Tensor:
        """Returns the streams (B, T, S, D) with the branch output (B, T, D) added, before rounding."""
        output = output.to(self.streams[0].dtype)
        parts = [
            self._mix(index + 1) + coefficients[..., -1:] * output
            for index, coefficients in enumerate(self.coefficients)
        ]
        return torch.stack(parts, dim=2)

    def _mix(self, column: int) -> Tensor:
        """Returns the sum of the streams weighted by a column of their coefficients."""
        pairs = zip(self.coefficients, self.streams, strict=True)
        return _sum([weights[..., column : column + 1] * stream for weights, stream in pairs])


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class HyperConnection(nn.Module):
    """Wraps a branch in S residual streams; S = 1 is the plain residual x + branch(x), without parameters.

    Args:
        dim: D.
        num_streams: S.
        first_stream: Index in [0, S) of the stream that the branch reads at initialization.
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
        """Sets the initial values described in the module docstring; none is random."""
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
        """Applies the branch to streams (B, T, S, D), which keep their precision under autocast."""
        if self.num_streams == 1:
            wide = upcast(streams)
            return (wide + branch(wide[:, :, 0])[:, :, None]).to(streams.dtype)
        if torch.compiler.is_compiling():
            return self._forward_fused(streams, branch)
        batch, length, count, dim = streams.shape
        with torch.autocast(streams.device.type, enabled=False):
            arguments = (streams.flatten(0, 1), self.gain, self.dynamic, self.static, self.dynamic_scale)
            read, carried, beta = _ReadStreamsFn.apply(*arguments)  # type: ignore[no-untyped-call]
        output = branch(read.view(batch, length, dim))
        with torch.autocast(streams.device.type, enabled=False):
            output = output.to(carried.dtype).reshape(-1, 1, dim)
            written: Tensor = _WriteStreamsFn.apply(carried, beta, output)  # type: ignore[no-untyped-call]
        return written.view(batch, length, count, dim).to(streams.dtype)

    def _forward_fused(self, streams: Tensor, branch: Branch) -> Tensor:
        """Variant of `forward` for torch.compile."""
        with torch.autocast(streams.device.type, enabled=False):
            weight, scale = _fold_gain(self.gain, self.dynamic, self.dynamic_scale)
            fused = _FusedStreams(streams, weight, scale, self.static)
            read = fused.read()
        output = branch(read)
        with torch.autocast(streams.device.type, enabled=False):
            return fused.write(output).to(streams.dtype)
