"""The model laid out for one new token of every row: what decoding runs.

If nothing came on top, a token would cost the time that it takes to read the weights once. But as they stream
through the cache they push everything else out of it, and each small operation between two matrix products
costs several times what it costs by itself. Hence the function that `Conformer.forward` computes on a chunk
of one is written here with few operations: what does not change from token to token (gains folded into the
rotations, coefficients, shares of the scales, views) is worked out once, results are written in place, and
what is kept is read where it lies. There are no dropouts and no gradients. attention_of_one.py has the
attention.

Shapes: B batch, D dim, S streams, C channels, K kernel, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from coma_gen.model.attention_of_one import AttentionOfOne, Heads, Norm, Sight
from coma_gen.model.convolution import CausalConvolution
from coma_gen.model.feed_forward import HalfFeedForward
from coma_gen.model.hyper_connections import SMALLEST_NORM, HyperConnection
from coma_gen.model.state import BlockState, DecodingState
from coma_gen.params.sections import ModelParams

if TYPE_CHECKING:
    from coma_gen.model.conformer import Block, Conformer


class Desk:
    """Where the numbers of one token lie while it passes: the residual streams, the input and the output
    (B, D) of the branch in hand, and what goes between. Each state has its own.

    Args:
        params: the model's shape.
        batch: B.
        like: gives device and precision.
    """

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, params: ModelParams, *, batch: int, like: Tensor) -> None:
        count, dim = params.num_streams, params.dim
        self.streams, self.output = like.new_empty(batch, count, dim), like.new_empty(batch, dim)
        self.flat, self.written = self.streams.view(-1, dim), self.output[:, None]
        self.norm = like.new_empty(batch * count, 1)
        self.dynamic = like.new_empty(batch, count, count + 2)
        self.flat_dynamic = self.dynamic.view(-1, count + 2)
        self.coefficients = like.new_empty(batch, count, count + 2)
        self.mix, self.beta = self.coefficients[:, :, :-1].mT, self.coefficients[:, :, -1:]
        self.mixed = like.new_empty(batch, count + 1, dim)
        self.input, self.carried = self.mixed[:, 0], self.mixed[:, 1:]
        self.local, self.everywhere = (
            Heads(like, batch=batch, scales=scales, num_heads=params.num_heads, head_dim=params.head_dim)
            for scales in (len(params.window_sizes), 1)
        )


class _Connection:
    """A hyper-connection.

    Args:
        connection: its weights.
        share: the part of the branch's output that is added.
    """

    def __init__(self, connection: HyperConnection, *, share: float = 1.0) -> None:
        self.share, count = share, connection.num_streams
        self.is_plain = count == 1
        if self.is_plain:
            return
        read, write = connection.dynamic_scale.unbind()
        shares = torch.cat((read.new_ones(count + 1), read.new_full((1,), share)))
        self.weight = connection.dynamic * (connection.gain * connection.gain.numel() ** 0.5)[:, None]
        self.static = connection.static * shares
        self.scale = torch.cat((read.expand(count + 1), write[None])) * shares

    def read(self, desk: Desk) -> Tensor:
        """The branch's input (B, D)."""
        if self.is_plain:
            return desk.streams[:, 0]
        torch.linalg.vector_norm(desk.flat, dim=-1, keepdim=True, out=desk.norm)
        torch.mm(desk.flat, self.weight, out=desk.flat_dynamic)
        desk.flat_dynamic.div_(desk.norm.clamp_min_(SMALLEST_NORM)).tanh_()
        torch.addcmul(self.static, desk.dynamic, self.scale, out=desk.coefficients)
        torch.bmm(desk.mix, desk.streams, out=desk.mixed)
        return desk.input

    def write(self, desk: Desk) -> None:
        """Adds the branch's output to the streams."""
        if self.is_plain:
            desk.streams.add_(desk.written, alpha=self.share)
        else:
            torch.addcmul(desk.carried, desk.beta, desk.written, out=desk.streams)


class _FeedForward:
    """A feed-forward without its factor of 0.5."""

    def __init__(self, feed_forward: HalfFeedForward) -> None:
        self.norm = Norm(feed_forward.norm)
        self.up, self.up_bias = feed_forward.up.weight.t(), feed_forward.up.bias
        self.down, self.down_bias = feed_forward.down.weight.t(), feed_forward.down.bias

    def __call__(self, x: Tensor, *, out: Tensor) -> None:
        """(B, D) -> (B, D)."""
        hidden = torch.addmm(self.up_bias, self.norm(x), self.up)
        torch.addmm(self.down_bias, F.silu(hidden, inplace=True), self.down, out=out)


class _Convolution:
    """The convolution module."""

    def __init__(self, convolution: CausalConvolution) -> None:
        self.norm, self.channel_norm = Norm(convolution.norm), Norm(convolution.channel_norm)
        self.expand, self.expand_bias = convolution.expand.weight.t(), convolution.expand.bias
        self.contract, self.contract_bias = convolution.contract.weight.t(), convolution.contract.bias
        self.taps, self.bias = convolution.depthwise_weight.t().contiguous(), convolution.depthwise_bias
        self.kernel_size = convolution.kernel_size

    def __call__(self, x: Tensor, memory: Tensor, *, fresh: int, out: Tensor) -> None:
        """(B, D) -> (B, D); writes the token into `memory` (B, K - 1 + room, C), after `fresh` others."""
        content, gate = torch.addmm(self.expand_bias, self.norm(x), self.expand).chunk(2, dim=1)
        torch.mul(content, gate.sigmoid_(), out=memory.select(1, self.kernel_size - 1 + fresh))
        convolved = (memory.narrow(1, fresh, self.kernel_size) * self.taps).sum(1).add_(self.bias)
        inner = self.channel_norm(F.silu(convolved, inplace=True))
        torch.addmm(self.contract_bias, inner, self.contract, out=out)


class _Block:
    """One block.

    Args:
        block: its weights.
        room: fresh tokens that a state can take.
    """

    def __init__(self, block: Block, *, room: int) -> None:
        connections = cast("Mapping[str, HyperConnection]", block.connections)
        self.global_attention = None
        if block.global_attention is not None:
            self.around_global = _Connection(connections["global_attention"])
            self.global_attention = AttentionOfOne(block.global_attention, room=room)
        self.around_in = _Connection(connections["feed_forward_in"], share=0.5)
        self.feed_forward_in = _FeedForward(block.feed_forward_in)
        self.around_attention = _Connection(connections["attention"])
        self.attention = AttentionOfOne(block.attention, room=room)
        self.around_convolution = _Connection(connections["convolution"])
        self.convolution = _Convolution(block.convolution)
        self.around_out = _Connection(connections["feed_forward_out"], share=0.5)
        self.feed_forward_out = _FeedForward(block.feed_forward_out)

    def __call__(
        self, desk: Desk, state: BlockState, sights: Sequence[Sight], everything: Sequence[Sight], fresh: int
    ) -> None:
        """Moves the streams and the state on."""
        out = desk.output
        if self.global_attention is not None:
            x, kept = self.around_global.read(desk), state.global_attention
            self.global_attention(x, kept, everything, desk.everywhere, fresh=fresh, out=out)
            self.around_global.write(desk)
        self.feed_forward_in(self.around_in.read(desk), out=out)
        self.around_in.write(desk)
        x = self.around_attention.read(desk)
        self.attention(x, state.attention, sights, desk.local, fresh=fresh, out=out)
        self.around_attention.write(desk)
        self.convolution(self.around_convolution.read(desk), state.convolution, fresh=fresh, out=out)
        self.around_convolution.write(desk)
        self.feed_forward_out(self.around_out.read(desk), out=out)
        self.around_out.write(desk)


class OneToken:
    """A conformer that moves states on by one token of each row at a time.

    Args:
        model: whose weights these are; what is folded does not follow later changes.
        room: fresh tokens that a state can take.
    """

    @torch.no_grad()
    def __init__(self, model: Conformer, *, room: int) -> None:
        self.params, self.norm, self.logits = model.params, Norm(model.norm), model.logits.weight.t()
        self.has_global = bool(model.params.global_attention_layers)
        self.blocks = [_Block(cast("Block", block), room=room) for block in model.blocks]

    def __call__(self, embedded: Tensor, state: DecodingState) -> Tensor:
        """The logits (B, 1, V) after the newest token of each row, whose embedding is (B, 1, D)."""
        if state.fresh == state.room:
            state.settle()
        if state.desk is None:
            state.desk = Desk(self.params, batch=state.batch, like=self.logits)
        desk, device = state.desk, embedded.device
        sights = [Sight.after(state.lengths, window=size, device=device) for size in self.params.window_sizes]
        everything = [Sight.after(state.lengths, window=None, device=device)] if self.has_global else []
        with torch.autocast(device.type, enabled=False):
            desk.streams.copy_(embedded)
            for block, kept in zip(self.blocks, state.blocks, strict=True):
                block(desk, kept, sights, everything, state.fresh)
            state.fresh += 1
            return torch.mm(self.norm(desk.streams.sum(1)), self.logits)[:, None]
