"""The causal conformer: token ids in, logits out, in chunks of any length.

    input_ids (B,T) -> embedding -> S residual streams -> L blocks -> their sum -> LayerNorm -> logits (B,T,V)

    block: the branches listed in `model.branches`, in order, each in its own hyper-connection.
           Conformer: half feed-forward, multi-scale local attention, convolution, half feed-forward.
           Plain transformer: attention, feed-forward.

The same forward serves training (no state), prefill (a chunk and a state), decoding (one token and a state)
and scoring of long performances (successive chunks and a state).

Sources: Gulati et al. 2020 (conformer, arXiv 2005.08100) and Zhu et al. 2024 (hyper-connections, arXiv
2409.19606).

Shapes: B batch, T tokens, D dim, S streams, V vocabulary, L blocks, F conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from coma_gen.config.schema import CONDITION_BINS, ModelParams
from coma_gen.core.errors import Fault, UserError
from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.cache import BlockState, DecodeCache
from coma_gen.model.convolution import CausalConvolution
from coma_gen.model.feed_forward import FeedForward
from coma_gen.model.hyper_connections import HyperConnection, upcast
from coma_gen.model.positions import PositionBias
from coma_gen.model.sublayers import Branch, build_branch

MIN_CACHE_CAPACITY = 32
"""Minimum of `Conformer.cache_capacity`."""

EMBEDDING_STD = 1.0
"""Standard deviation of initial embeddings; 0.02 and 0.2 learned more slowly on a copying task."""


class Block(nn.Module):
    """One block: its branches in order, each in its own hyper-connection.

    Args:
        params: Shape of the model.
        index: Index of the block, from 0.
        seed: Offset of the stream that each branch reads at initialization.
    """

    def __init__(self, *, params: ModelParams, index: int, seed: int) -> None:
        super().__init__()
        names = ["global_attention"] if index in params.global_attention_layers else []
        self.branches = nn.ModuleList(build_branch(name, params) for name in (*names, *params.branches))
        offset = seed + index * (len(self.branches) + 1)  # the next block starts at another stream
        self.connections = nn.ModuleList(
            HyperConnection(
                dim=params.dim,
                num_streams=params.num_streams,
                first_stream=(offset + branch_index) % params.num_streams,
            )
            for branch_index in range(len(self.branches))
        )

    def forward(
        self, streams: Tensor, state: BlockState | None = None, lengths: Sequence[int] = ()
    ) -> Tensor:
        """Applies the block to streams (B, T, S, D) and updates `state` in place.

        `state` must be compacted (no appended tokens); `lengths` are the numbers of tokens that the rows have
        already processed.
        """
        branch_states = [()] * len(self.branches) if state is None else state
        for connection, branch, part in zip(self.connections, self.branches, branch_states, strict=True):
            apply_branch = partial(branch, state=part, lengths=lengths) if part else branch
            streams = connection(streams, apply_branch)
        return streams

    def init_cache(self, batch: int, *, capacity: int) -> BlockState:
        """Creates an empty cache for `batch` rows with `capacity` slots for appended tokens."""
        return [
            [] if isinstance(branch, FeedForward) else branch.init_cache(batch, capacity=capacity)
            for branch in cast("Sequence[Branch]", self.branches)
        ]


def _uninitialized(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


class Conformer(nn.Module):
    """Causal conformer language model.

    With `position_embedding: learned` no row may exceed `max_seq_len` tokens. To score or sample longer
    music, prefill an empty state with the last max_seq_len / 2 tokens and continue from there. With `none`,
    the default, any length is exact.

    Args:
        params: Shape of the model.
        vocab_size: V.
        seed: Seed of the initial weights, a function of (params, vocab_size, seed) alone; the global random
            state is not touched.

    Attributes:
        stream_dtype: Dtype of the residual streams between branches; None for that of the embeddings.
    """

    def __init__(self, *, params: ModelParams, vocab_size: int, seed: int) -> None:
        super().__init__()
        self.params, self.vocab_size = params, vocab_size
        self.stream_dtype: torch.dtype | None = None
        with torch.device("meta"):
            self.token_embedding = _embedding(vocab_size, params.dim)
            learned = params.position_embedding == "learned"
            self.position_embedding = _embedding(params.max_seq_len, params.dim) if learned else None
            self.condition_embeddings = nn.ModuleDict(
                {name: _embedding(CONDITION_BINS + 1, params.dim, null_row=0) for name in params.conditions}
            )
            self.embedding_dropout = nn.Dropout(params.embedding_dropout)
            self.blocks = nn.ModuleList(
                Block(params=params, index=i, seed=seed) for i in range(params.num_layers)
            )
            self.norm = nn.LayerNorm(params.dim)
            self.logits = nn.Linear(params.dim, vocab_size, bias=False)
        # `to_empty` would import the compiler's symbolic shapes and sympy.
        self._apply(_uninitialized)  # type: ignore[no-untyped-call]
        initialize(self, seed=seed)

    def forward(
        self, input_ids: Tensor, state: DecodeCache | None = None, conditions: Tensor | None = None
    ) -> Tensor:
        """Returns the next-token logits (B, T, V) at each position.

        Args:
            input_ids: (B, T), any T >= 1.
            state: Cache of the tokens before this chunk, updated in place; None if the chunk is the whole
                sequence. Gradients do not flow into earlier chunks.
            conditions: int64 (B, T, F) bins of `model.conditions` at each position, 0 where unspecified; None
                if all are unspecified.

        Raises:
            UserError: If a row exceeds the learned position embedding.
            ValueError: If `input_ids` is not (B, T), or `state` or `conditions` do not match it.
        """
        if input_ids.dim() != 2 or input_ids.numel() == 0:
            raise ValueError(f"input_ids must be (batch, tokens) and not empty, got {tuple(input_ids.shape)}")
        if state is not None and state.batch != input_ids.shape[0]:
            raise ValueError(f"the state has {state.batch} rows, but input_ids has {input_ids.shape[0]}")
        embedded = self.embedding_dropout(self.embed(input_ids, state, conditions))
        if self.stream_dtype is not None:
            embedded = embedded.to(self.stream_dtype)
        streams = embedded[:, :, None].repeat(1, 1, self.params.num_streams, 1)
        if state is None:
            for block in self.blocks:
                streams = block(streams)
        else:
            state.compact()
            for block, block_state in zip(self.blocks, state.blocks, strict=True):
                streams = block(streams, block_state, state.lengths)
            state.lengths = tuple(length + input_ids.shape[1] for length in state.lengths)
        # `.sum(2)` would have an expanded gradient, which is slow to multiply.
        logits: Tensor = self.logits(self.norm(sum(upcast(streams).unbind(2))))
        return logits

    def embed(self, input_ids: Tensor, state: DecodeCache | None, conditions: Tensor | None = None) -> Tensor:
        """Sums the embeddings of tokens, learned positions and conditions: (B, T) -> (B, T, D).

        Raises:
            UserError, ValueError: As in `forward`.
        """
        embedded: Tensor = self.token_embedding(input_ids)
        if self.position_embedding is not None:
            embedded = embedded + self.position_embedding(self._positions(input_ids, state))
        if conditions is not None:
            if conditions.shape != (*input_ids.shape, len(self.condition_embeddings)):
                raise ValueError(
                    f"conditions must be (batch, tokens, {len(self.condition_embeddings)}), as input_ids and "
                    f"model.conditions, got {tuple(conditions.shape)}"
                )
            for bins, table in zip(conditions.unbind(-1), self.condition_embeddings.values(), strict=True):
                embedded = embedded + table(bins)
        return embedded

    def _positions(self, input_ids: Tensor, state: DecodeCache | None) -> Tensor:
        """Returns the position of each token in its row, (B, T)."""
        batch, length = input_ids.shape
        starts = (0,) * batch if state is None else state.lengths
        if max(starts) + length > self.params.max_seq_len:
            raise UserError(
                Fault(
                    "model.max_seq_len",
                    f"a learned position embedding allows at most {self.params.max_seq_len} tokens per row",
                    f"{max(starts) + length} tokens",
                    "prefill an empty state with the last half of them, or use position_embedding: none",
                )
            )
        offsets = torch.arange(length, device=input_ids.device)
        return torch.tensor(starts, device=input_ids.device)[:, None] + offsets

    def init_cache(self, batch: int) -> DecodeCache:
        """Creates an empty cache for `batch` rows, on the model's device and in its dtype."""
        capacity = self.cache_capacity
        blocks = cast("Sequence[Block]", self.blocks)
        caches = [block.init_cache(batch, capacity=capacity) for block in blocks]
        return DecodeCache(caches, (0,) * batch, capacity)

    @property
    def cache_capacity(self) -> int:
        """Number of tokens that can be appended to a cache between two compactions."""
        attentions = [module for module in self.modules() if isinstance(module, MultiScaleAttention)]
        rotations = [rotation for attention in attentions for rotation in attention.rotations if rotation]
        bounds = [rotation.max_queries // 2 for rotation in rotations]
        return min([max(MIN_CACHE_CAPACITY, max(self.params.window_sizes) // 4), *bounds])

    @property
    def receptive_field(self) -> int | None:
        """Number of tokens, the current one included, that a logit depends on; None with global attention."""
        if self.params.global_attention_layers:
            return None
        reach = {"attention": max(self.params.window_sizes), "convolution": self.params.kernel_size - 1}
        return 1 + self.params.num_layers * sum(reach.get(name, 0) for name in self.params.branches)


def _embedding(rows: int, dim: int, *, null_row: int | None = None) -> nn.Embedding:
    """Creates an uninitialized embedding; `null_row` gets no gradient.

    `_weight` skips the constructor's own initialization, which imports half of torch's compiler.
    """
    return nn.Embedding(rows, dim, padding_idx=null_row, _weight=torch.empty(rows, dim))


def num_parameters(model: nn.Module) -> int:
    """Counts the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def decayed_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Splits the parameters into those with weight decay and those without.

    Weights of linear layers and convolutions and embeddings decay. Gains, biases, scale weights and
    hyper-connections do not.
    """
    decayed = [
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if (isinstance(module, nn.Linear | nn.Embedding) and name == "weight") or name == "depthwise_weight"
    ]
    chosen = {id(parameter) for parameter in decayed}
    return decayed, [parameter for parameter in model.parameters() if id(parameter) not in chosen]


STACKED_MAPS = {"qkv": 3, "expand": 2}
"""Number of matrices fused in a layer's weight: queries, keys and values; values and gates of a GLU."""


def hidden_matrices(model: nn.Module) -> dict[nn.Parameter, int]:
    """Returns the weight of every linear layer of the branches and the number of matrices fused in it."""
    return {
        cast("nn.Parameter", layer.weight): STACKED_MAPS.get(name, 1)
        for block in model.modules()
        if isinstance(block, Block)
        for branch in block.branches
        for name, layer in branch.named_children()
        if isinstance(layer, nn.Linear)
    }


@torch.no_grad()
def initialize(model: Conformer, *, seed: int) -> None:
    """Initializes every parameter as a function of the shapes and the seed alone.

    Linear layers and convolutions are uniform within 1 / sqrt(inputs), embeddings are normal, gains one and
    biases of norms zero. Condition embeddings are zero, so conditions have no effect at first. For
    hyper-connections see `HyperConnection`.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            _uniform(module.in_features, generator, module.weight, module.bias)
        elif isinstance(module, CausalConvolution):
            _uniform(module.kernel_size, generator, module.depthwise_weight, module.depthwise_bias)
        elif isinstance(module, nn.Embedding):
            if module.padding_idx is None:
                module.weight.normal_(std=EMBEDDING_STD, generator=generator)
            else:
                module.weight.zero_()
        elif isinstance(module, nn.LayerNorm | HyperConnection | PositionBias):
            module.reset_parameters()
        elif isinstance(module, MultiScaleAttention):
            module.reset_gains()


def _uniform(inputs: int, generator: torch.Generator, *parameters: Tensor | None) -> None:
    """Fills parameters in place, uniformly within 1 / sqrt(inputs)."""
    for parameter in parameters:
        if parameter is not None:
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
