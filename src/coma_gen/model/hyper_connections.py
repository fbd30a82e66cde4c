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

Streams may be bfloat16, half the bytes (`train.streams`). Then all that is computed of them is float32, and
rounded once, when a connection's streams are written; so are their gradients.

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
"""Share of the dynamic coefficients at the start."""

SMALLEST_NORM = 1e-12
"""Streams shorter than this are divided by this."""


class Branch(Protocol):
    """What a hyper-connection wraps: (B, T, D) -> (B, T, D)."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """The branch's output."""
        ...


class _ReadStreamsFn(torch.autograd.Function):
    """Branch input, carried streams and output weights, from the streams.

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
        """Mixes.

        Args:
            ctx: for the gradient.
            stored: the streams (N, S, D).
            gain: (D,).
            dynamic: (D, S + 2).
            static: (S, S + 2).
            dynamic_scale: (2,).

        Returns:
            Branch input (N, 1, D), carried streams (N, S, D), output weights (N, S, 1), none in bfloat16.
        """
        streams = computed(stored)
        products, count = products_of(streams), streams.shape[1]
        weight, scale = _folded(gain, dynamic, dynamic_scale)
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
        streams = computed(stored)
        products, count = products_of(streams), streams.shape[1]
        weight, scale = _folded(gain, dynamic, dynamic_scale)
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
            shares = torch.stack((scale_gradient[: count + 1].sum(), scale_gradient[-1]))
        return gradient.to(stored.dtype), gain_gradient, dynamic_gradient, static_gradient, shares


class _WriteStreamsFn(torch.autograd.Function):
    """carried (N, S, D) + beta (N, S, 1) x branch output (N, 1, D), in place."""

    @staticmethod
    def forward(ctx: Any, carried: Tensor, beta: Tensor, output: Tensor) -> Tensor:
        ctx.mark_dirty(carried)
        ctx.save_for_backward(beta, output)
        return carried.addcmul_(beta, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        beta, output = ctx.saved_tensors
        of_beta = (gradient * output).sum(-1, keepdim=True)
        return gradient, of_beta, products_of(gradient).multiply(beta.mT, gradient)


def computed(streams: Tensor) -> Tensor:
    """The streams in the precision that is computed in: float32, unless they are more precise."""
    return streams.to(torch.promote_types(streams.dtype, torch.float32))


def _folded(gain: Tensor, dynamic: Tensor, dynamic_scale: Tensor) -> tuple[Tensor, Tensor]:
    """`dynamic` with RMSNorm's gain and sqrt(D) folded in, (D, S + 2), and the scale of each column of it."""
    reads = dynamic_scale[:1].expand(dynamic.shape[1] - 1)
    return dynamic * (gain * gain.numel() ** 0.5)[:, None], torch.cat((reads, dynamic_scale[1:]))


class _ProductsFn(torch.autograd.Function):
    """Products of one stream (B, T, D) with each column of `weight` (D, J), (B, T, J), as sums.

    A compiler fuses them with all else that reads the stream. The weight's gradient is a matrix product, of
    `stored`, the stream as it is kept: a product of what is only computed has the compiler keep that as well.
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
        of_stream = _sum_of([part[..., None] * column for part, column in parts])
        of_weight = stored.flatten(0, 1).t() @ gradient.flatten(0, 1).to(stored.dtype)
        return of_stream, of_weight.to(weight.dtype), None


class _FusedStreams:
    """`_ReadStreamsFn` and `_WriteStreamsFn` as formulas of single streams, for a compiler to fuse.

    Streams that lie apart let all that reads them, sums over D and what follows from these, be one pass; the
    carried streams are never written, but worked out where the branch's output is added. So a connection
    reads the streams to mix them and again to write them, and the latter is one pass with the next one's
    reading. Uncompiled it takes several times as long.

    Args:
        streams: (B, T, S, D).
        weight: (D, S + 2), of `_folded`.
        scale: (S + 2,), of `_folded`.
        static: (S, S + 2).
    """

    def __init__(self, streams: Tensor, weight: Tensor, scale: Tensor, static: Tensor) -> None:
        parts = streams.unbind(2)  # first: of two casts in a row a compiler leaves the first one out
        self.streams = [computed(stored) for stored in parts]
        self.coefficients = []
        for stream, stored, start in zip(self.streams, parts, static.unbind(0), strict=True):
            inverse = stream.square().sum(-1, keepdim=True).clamp_min(SMALLEST_NORM**2).rsqrt()
            products: Tensor = _ProductsFn.apply(stream, weight, stored.detach())  # type: ignore[no-untyped-call]
            self.coefficients.append(start + (products * inverse).tanh() * scale)

    def read(self) -> Tensor:
        """The branch input (B, T, D)."""
        return self._mixed(0)

    def written(self, output: Tensor) -> Tensor:
        """The streams (B, T, S, D) after the branch has given (B, T, D), not rounded."""
        output = output.to(self.streams[0].dtype)
        parts = [
            self._mixed(index + 1) + coefficients[..., -1:] * output
            for index, coefficients in enumerate(self.coefficients)
        ]
        return torch.stack(parts, dim=2)

    def _mixed(self, column: int) -> Tensor:
        """The streams weighted by a column of their coefficients."""
        pairs = zip(self.coefficients, self.streams, strict=True)
        return _sum_of([each[..., column : column + 1] * stream for each, stream in pairs])


def _sum_of(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


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
            wide = computed(streams)
            return (wide + branch(wide[:, :, 0])[:, :, None]).to(streams.dtype)
        if torch.compiler.is_compiling():
            return self._fused(streams, branch)
        batch, length, count, dim = streams.shape
        with torch.autocast(streams.device.type, enabled=False):
            arguments = (streams.flatten(0, 1), self.gain, self.dynamic, self.static, self.dynamic_scale)
            read, carried, beta = _ReadStreamsFn.apply(*arguments)  # type: ignore[no-untyped-call]
        output = branch(read.view(batch, length, dim))
        with torch.autocast(streams.device.type, enabled=False):
            output = output.to(carried.dtype).reshape(-1, 1, dim)
            written: Tensor = _WriteStreamsFn.apply(carried, beta, output)  # type: ignore[no-untyped-call]
        return written.view(batch, length, count, dim).to(streams.dtype)

    def _fused(self, streams: Tensor, branch: Branch) -> Tensor:
        """`forward`, compiled."""
        with torch.autocast(streams.device.type, enabled=False):
            weight, scale = _folded(self.gain, self.dynamic, self.dynamic_scale)
            fused = _FusedStreams(streams, weight, scale, self.static)
            read = fused.read()
        output = branch(read)
        with torch.autocast(streams.device.type, enabled=False):
            return fused.written(output).to(streams.dtype)
