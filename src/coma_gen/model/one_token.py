"""The model laid out for one new token of every row: what decoding runs.

If nothing came on top, a token would cost the time that it takes to read the weights once. But as they stream
through the cache they push everything else out of it, and each small operation between two matrix products
costs several times what it costs by itself. Hence the function that `Conformer.forward` computes on a chunk
of one is written here with few operations: what does not change from token to token (gains folded into the
rotations, coefficients, shares of the scales, views) is worked out once, results are written in place, and
what is kept is read where it lies. There are no dropouts and no gradients.

Shapes: B batch, D dim, S streams, G scales, H heads of a scale, d head dim, N visible tokens, C channels, K
kernel, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.convolution import CausalConvolution
from coma_gen.model.feed_forward import HalfFeedForward
from coma_gen.model.hyper_connections import SMALLEST_NORM, HyperConnection
from coma_gen.model.state import BlockState, DecodingState, KeyValues
from coma_gen.params.sections import ModelParams

if TYPE_CHECKING:
    from coma_gen.model.conformer import Block, Conformer


class Sight(NamedTuple):
    """What the new tokens' queries see of a window.

    Attributes:
        visible: N, the new token included, in the longest row.
        exists: (B, 1, 1, N) bool, which of them stand for a token; None where all do.
    """

    visible: int
    exists: Tensor | None

    @classmethod
    def after(cls, lengths: Sequence[int], *, window: int | None, device: torch.device) -> Sight:
        """The sight of rows that have seen `lengths` tokens before."""
        before = max(lengths) if window is None else min(max(lengths), window)
        if min(lengths) >= before:
            return cls(before + 1, None)
        missing = torch.tensor([max(0, before - length) for length in lengths], device=device)
        exists = torch.arange(before + 1, device=device) >= missing[:, None]
        return cls(before + 1, exists[:, None, None])


class _Heads:
    """The queries, keys and values of the new tokens in one attention.

    Args:
        like: gives device and precision.
        batch: B.
        scales: G.
        num_heads: H.
        head_dim: d.
    """

    def __init__(self, like: Tensor, *, batch: int, scales: int, num_heads: int, head_dim: int) -> None:
        self.fused = like.new_empty(batch, 3 * scales * num_heads * head_dim)
        parts = self.fused.view(batch, 3, scales, num_heads, head_dim)
        self.queries_keys = parts[:, :2]
        self.halves = self.queries_keys.chunk(2, dim=-1)
        self.queries = parts[:, 0, :, :, None].unbind(1)  # G of (B, H, 1, d)
        self.keys_values = parts[:, 1:].transpose(0, 1).unbind(2)  # G of (2, B, H, d)


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
            _Heads(like, batch=batch, scales=scales, num_heads=params.num_heads, head_dim=params.head_dim)
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


class _Norm:
    """A layer norm."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.shape, self.weight, self.bias, self.eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.shape, self.weight, self.bias, self.eps, False)


class _FeedForward:
    """A feed-forward without its factor of 0.5."""

    def __init__(self, feed_forward: HalfFeedForward) -> None:
        self.norm = _Norm(feed_forward.norm)
        self.up, self.up_bias = feed_forward.up.weight.t(), feed_forward.up.bias
        self.down, self.down_bias = feed_forward.down.weight.t(), feed_forward.down.bias

    def __call__(self, x: Tensor, *, out: Tensor) -> None:
        """(B, D) -> (B, D)."""
        hidden = torch.addmm(self.up_bias, self.norm(x), self.up)
        torch.addmm(self.down_bias, F.silu(hidden, inplace=True), self.down, out=out)


class _Attention:
    """An attention over what is kept and the new token.

    Args:
        attention: its weights.
        room: fresh tokens that a state can take.
    """

    def __init__(self, attention: MultiScaleAttention, *, room: int) -> None:
        self.norm, self.qkv, self.out = (
            _Norm(attention.norm),
            attention.qkv.weight.t(),
            attention.out.weight.t(),
        )
        self.normalises, self.softmax_scale = attention.query_gain is not None, attention.softmax_scale
        self.cosines, self.sines = _turns(attention, room=room)
        self.shares = None
        if attention.scale_weights is not None:
            width = attention.num_heads * attention.head_dim
            self.shares = attention.scale_weights.softmax(0).repeat_interleave(width)
        self.windows, self.position_bias = attention.window_sizes, attention.position_bias
        self.biases = attention.out.weight.new_empty(0)

    def __call__(
        self,
        x: Tensor,
        kept: Sequence[KeyValues],
        sights: Sequence[Sight],
        heads: _Heads,
        *,
        fresh: int,
        out: Tensor,
    ) -> None:
        """(B, D) -> (B, D); writes the token into what is kept, after `fresh` others."""
        torch.mm(self.norm(x), self.qkv, out=heads.fused)
        self._place(heads, fresh)
        attended = []
        for scale, sight in enumerate(sights):
            keys, values = kept[scale].write(heads.keys_values[scale], fresh=fresh, visible=sight.visible)
            mask = sight.exists if self.position_bias is None else self._bias(scale, sight)
            attended.append(
                F.scaled_dot_product_attention(
                    heads.queries[scale], keys, values, attn_mask=mask, scale=self.softmax_scale
                )
            )
        joined = torch.cat(attended, dim=1).view(out.shape[0], -1)
        if self.shares is not None:
            joined.mul_(self.shares)
        torch.mm(joined, self.out, out=out)

    def _place(self, heads: _Heads, fresh: int) -> None:
        """Normalises and turns queries and keys, in place."""
        both = heads.queries_keys
        if self.normalises:
            both.div_(torch.linalg.vector_norm(both, dim=-1, keepdim=True).clamp_min_(SMALLEST_NORM))
        if self.sines:
            first, second = heads.halves
            swapped = torch.cat((second, first), dim=-1)
            both.mul_(self.cosines[fresh]).addcmul_(swapped, self.sines[fresh])
        elif self.cosines:
            both.mul_(self.cosines[fresh])

    def _bias(self, scale: int, sight: Sight) -> Tensor:
        """What is added to the products of a scale, (B or 1, H, 1, N)."""
        assert self.position_bias is not None
        if self.biases.shape[-1] < sight.visible:  # without a window, twice as many as are wanted
            distances = max(window or 2 * sight.visible for window in self.windows) + 1
            biases = self.position_bias(distances).T.flip(1)  # (G H, distances), the farthest first
            self.biases = biases.reshape(len(self.windows), 1, -1, 1, distances)
        bias = self.biases[scale][..., -sight.visible :]
        return bias if sight.exists is None else bias.masked_fill(~sight.exists, float("-inf"))


def _turns(attention: MultiScaleAttention, *, room: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Cosines and signed sines for the query and the key of each fresh token, times their gains.

    Returns:
        `room` of (2, G, 1, d) each. Without a rotation no sines, and the cosines are the gains; none without
        those.
    """
    gains = None
    if attention.query_gain is not None and attention.key_gain is not None:
        gains = torch.stack((attention.query_gain, attention.key_gain))  # (2, G, d)
    tables = [
        rotation.tables(0, room, like=attention.qkv.weight) for rotation in attention.rotations if rotation
    ]
    if not tables:
        return ([] if gains is None else [gains[:, :, None]] * room), []
    parts = [torch.stack(part, dim=1) for part in zip(*tables, strict=True)]  # each (room, G, d)
    cosines, sines = torch.stack(parts[0::2], dim=1), torch.stack(parts[1::2], dim=1)
    if gains is not None:
        cosines, sines = cosines * gains, sines * gains.roll(attention.head_dim // 2, dims=-1)
    return cosines[:, :, :, None].unbind(0), sines[:, :, :, None].unbind(0)


class _Convolution:
    """The convolution module."""

    def __init__(self, convolution: CausalConvolution) -> None:
        self.norm, self.channel_norm = _Norm(convolution.norm), _Norm(convolution.channel_norm)
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
            self.global_attention = _Attention(block.global_attention, room=room)
        self.around_in = _Connection(connections["feed_forward_in"], share=0.5)
        self.feed_forward_in = _FeedForward(block.feed_forward_in)
        self.around_attention = _Connection(connections["attention"])
        self.attention = _Attention(block.attention, room=room)
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
        self.params, self.norm, self.logits = model.params, _Norm(model.norm), model.logits.weight.t()
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
