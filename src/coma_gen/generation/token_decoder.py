"""The model optimized for decoding: one new token per row.

Ideally a token costs one read of the weights. But as the weights stream through the CPU's cache they evict
everything else, and each small operation between two matrix products costs several times what it costs alone.
Hence this module computes `Conformer.forward` for a chunk of one token with few operations: everything that
does not change between tokens (gains folded into the rotations, coefficients, softmax over the scales, views)
is computed once, results are written in place, and the cache is read without a copy. There is no dropout and
there are no gradients. The attention is in token_attention.py.

Shapes: B batch, D dim, S streams, C channels, K kernel, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from coma_gen.generation.recorded_steps import RecordedSteps
from coma_gen.generation.step_buffers import StepBuffers
from coma_gen.generation.token_attention import FunctionalLayerNorm, StepContext, TokenAttention
from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.cache import BlockState, ConvCache, DecodeCache, LayerCache
from coma_gen.model.convolution import CausalConvolution
from coma_gen.model.feed_forward import FeedForward
from coma_gen.model.hyper_connections import SMALLEST_NORM, HyperConnection
from coma_gen.model.portable import products_of
from coma_gen.model.sublayers import Branch

if TYPE_CHECKING:
    from coma_gen.model.conformer import Block, Conformer


class _FoldedHyperConnection:
    """A hyper-connection with its constants folded.

    Args:
        connection: Layer whose weights are used.
        share: Factor of the sublayer's output.
    """

    def __init__(self, connection: HyperConnection, *, share: float = 1.0) -> None:
        self.share, count = share, connection.num_streams
        self.is_plain = count == 1
        if self.is_plain:
            return
        read, write = connection.dynamic_scale.unbind()
        shares = torch.cat((read.new_ones(count + 1), read.new_full((1,), share)))
        self.products = products_of(connection.dynamic)
        self.weight = connection.dynamic * (connection.gain * connection.gain.numel() ** 0.5)[:, None]
        self.static = connection.static * shares
        self.scale = torch.cat((read.expand(count + 1), write[None])) * shares

    def bind(self, buffers: StepBuffers) -> None:
        """Binds the projections to these buffers."""
        if not self.is_plain:
            self.project_dynamic = self.products.bind(self.weight, buffers.flat_dynamic)

    def read(self, buffers: StepBuffers) -> None:
        """Mixes the streams into the sublayer's input."""
        if self.is_plain:
            return
        torch.linalg.vector_norm(buffers.flat, dim=-1, keepdim=True, out=buffers.norm)
        self.project_dynamic(buffers.flat)
        buffers.flat_dynamic.div_(buffers.norm.clamp_min_(SMALLEST_NORM)).tanh_()
        torch.addcmul(self.static, buffers.dynamic, self.scale, out=buffers.coefficients)
        buffers.mix_streams(buffers.mix)

    def write(self, buffers: StepBuffers) -> None:
        """Adds the sublayer's output to the streams."""
        if self.is_plain:
            buffers.streams.add_(buffers.written, alpha=self.share)
        else:
            torch.addcmul(buffers.carried, buffers.beta, buffers.written, out=buffers.streams)


class _FoldedFeedForward:
    """A feed-forward layer without its residual factor, which the hyper-connection applies."""

    def __init__(self, feed_forward: FeedForward) -> None:
        self.norm, self.products = FunctionalLayerNorm(feed_forward.norm), products_of(feed_forward.up.weight)
        self.up, self.up_bias = feed_forward.up.weight.t(), feed_forward.up.bias
        self.down, self.down_bias = feed_forward.down.weight.t(), feed_forward.down.bias

    def bind(self, buffers: StepBuffers) -> None:
        """Binds the projections to these buffers."""
        self.project_inner = self.products.bind(self.up, buffers.inner, self.up_bias)
        self.project_output = self.products.bind(self.down, buffers.output, self.down_bias)

    def __call__(self, buffers: StepBuffers, _cache: Sequence[LayerCache], _context: StepContext) -> None:
        """From the buffers' input to its output, both (B, D)."""
        self.project_inner(self.norm(buffers.input))
        self.project_output(F.silu(buffers.inner, inplace=True))


class _FoldedConvolution:
    """The convolution module."""

    def __init__(self, convolution: CausalConvolution) -> None:
        self.products = products_of(convolution.expand.weight)
        self.norm, self.channel_norm = (
            FunctionalLayerNorm(convolution.norm),
            FunctionalLayerNorm(convolution.channel_norm),
        )
        self.expand, self.expand_bias = convolution.expand.weight.t(), convolution.expand.bias
        self.contract, self.contract_bias = convolution.contract.weight.t(), convolution.contract.bias
        self.taps, self.bias = convolution.depthwise_weight.t().contiguous(), convolution.depthwise_bias

    def bind(self, buffers: StepBuffers) -> None:
        """Binds the projections to these buffers."""
        self.project_expanded = self.products.bind(self.expand, buffers.expanded, self.expand_bias)
        self.project_output = self.products.bind(self.contract, buffers.output, self.contract_bias)

    def __call__(self, buffers: StepBuffers, layer_cache: Sequence[LayerCache], context: StepContext) -> None:
        """From the buffers' input to its output, both (B, D)."""
        newest, visible = cast("ConvCache", layer_cache[0]).reserve(context.num_appended)
        self.project_expanded(self.norm(buffers.input))
        torch.mul(buffers.content, buffers.gate.sigmoid_(), out=newest)
        convolved = (visible * self.taps).sum(1).add_(self.bias)
        self.project_output(self.channel_norm(F.silu(convolved, inplace=True)))


def _fold_sublayer(
    branch: Branch, *, capacity: int
) -> TokenAttention | _FoldedConvolution | _FoldedFeedForward:
    """Builds the one-token version of a sublayer."""
    if isinstance(branch, MultiScaleAttention):
        return TokenAttention(branch, capacity=capacity)
    return _FoldedConvolution(branch) if isinstance(branch, CausalConvolution) else _FoldedFeedForward(branch)


class _FoldedBlock:
    """One block.

    Args:
        block: Block whose weights are used.
        capacity: Number of tokens that a cache takes before it is compacted.
    """

    def __init__(self, block: Block, *, capacity: int) -> None:
        branches = cast("Sequence[Branch]", block.branches)
        connections = cast("Sequence[HyperConnection]", block.connections)
        shares = [branch.share if isinstance(branch, FeedForward) else 1.0 for branch in branches]
        self.branches = [
            (_FoldedHyperConnection(connection, share=share), _fold_sublayer(branch, capacity=capacity))
            for connection, branch, share in zip(connections, branches, shares, strict=True)
        ]

    def bind(self, buffers: StepBuffers) -> None:
        """Binds the projections to these buffers."""
        for connection, branch in self.branches:
            connection.bind(buffers)
            branch.bind(buffers)

    def __call__(self, buffers: StepBuffers, state: BlockState, context: StepContext) -> None:
        """Updates the streams and the cache in place."""
        for (connection, branch), layer_cache in zip(self.branches, state, strict=True):
            connection.read(buffers)
            branch(buffers, layer_cache, context)
            connection.write(buffers)


class TokenDecoder:
    """Advances caches by one token per row. Not thread-safe: the buffers are shared.

    Args:
        model: Model whose weights are used; later changes of folded weights have no effect.
        recorded: Runs the steps that depend on the cache slot alone; None for CUDA graphs on a CUDA device.
    """

    @torch.no_grad()
    def __init__(self, model: Conformer, recorded: RecordedSteps | None = None) -> None:
        self.model, capacity = model, model.cache_capacity
        self.recorded = recorded or (RecordedSteps() if model.logits.weight.is_cuda else None)
        self.buffers: StepBuffers | None = None
        self.params, self.norm, self.logits = (
            model.params,
            FunctionalLayerNorm(model.norm),
            model.logits.weight.t(),
        )
        self.products = products_of(model.logits.weight)
        everything = [None] if model.params.global_attention_layers else []
        self.windows = {*everything, *model.params.window_sizes}
        self.blocks = [_FoldedBlock(cast("Block", block), capacity=capacity) for block in model.blocks]

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, state: DecodeCache, conditions: Tensor | None = None) -> Tensor:
        """Computes the logits (B, V) after one token per row, as the model in evaluation mode does.

        Args:
            input_ids: (B, 1) new tokens.
            state: Cache of the model, updated in place.
            conditions: (B, 1, F) condition bins, or None.

        Raises:
            UserError: A row is longer than the learned position embedding.
        """
        embedded = self.model.embed(input_ids, state, conditions)
        if state.num_appended == state.capacity:
            state.compact()
        if self.buffers is None or self.buffers.batch != state.batch:
            self.buffers = StepBuffers(self.params, batch=state.batch, like=self.logits)
            for block in self.blocks:
                block.bind(self.buffers)
        buffers, device = self.buffers, embedded.device
        context = StepContext.after(
            state.lengths, num_appended=state.num_appended, windows=self.windows, device=device
        )
        with torch.autocast(device.type, enabled=False):
            if self.recorded is not None and context.is_full:
                work = partial(self._step, buffers.embedded.copy_(embedded), buffers, state.blocks, context)
                logits = self.recorded(state, work)
            else:
                logits = self._step(embedded, buffers, state.blocks, context)
        state.num_appended += 1
        state.lengths = tuple(length + 1 for length in state.lengths)
        return logits

    def _step(
        self, embedded: Tensor, buffers: StepBuffers, blocks: Sequence[BlockState], context: StepContext
    ) -> Tensor:
        """Computes the logits (B, V) after embedded tokens (B, 1, D) and adds the tokens to the caches."""
        buffers.streams.copy_(embedded)
        for block, layer_cache in zip(self.blocks, blocks, strict=True):
            block(buffers, layer_cache, context)
        return self.products.multiply(self.norm(buffers.streams.sum(1)), self.logits)
