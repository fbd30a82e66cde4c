"""Scratch buffers for one decoding step, allocated once per batch size.

Shapes: B batch, D dim, S streams, G scales (attention windows), H heads of a scale, d head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coma_gen.config.schema import ModelParams
from coma_gen.model.portable import products_of


class QKVBuffer:
    """Buffer for the queries, keys and values of the new tokens in one attention layer.

    Args:
        like: Tensor with the device and dtype of the buffer.
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


class StepBuffers:
    """Scratch buffers for one decoding step: embedded tokens (B, 1, D), residual streams (B, S, D), input and
    output (B, D) of a sublayer, and intermediate results.

    Args:
        params: Shape of the model.
        batch: B.
        like: Tensor with the device and dtype of the buffers.
    """

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, params: ModelParams, *, batch: int, like: Tensor) -> None:
        self.batch, count, dim = batch, params.num_streams, params.dim
        self.embedded = like.new_empty(batch, 1, dim)
        self.streams, self.output = like.new_empty(batch, count, dim), like.new_empty(batch, dim)
        self.flat, self.written = self.streams.view(-1, dim), self.output[:, None]
        self.norm = like.new_empty(batch * count, 1)
        self.dynamic = like.new_empty(batch, count, count + 2)
        self.flat_dynamic = self.dynamic.view(-1, count + 2)
        self.coefficients = like.new_empty(batch, count, count + 2)
        self.mix, self.beta = self.coefficients[:, :, :-1].mT, self.coefficients[:, :, -1:]
        self.mixed = like.new_empty(batch, count + 1, dim)
        self.mix_streams = products_of(like).bind(self.streams, self.mixed)
        self.input = self.streams[:, 0] if count == 1 else self.mixed[:, 0]
        self.carried = self.mixed[:, 1:]
        self.inner = like.new_empty(batch, params.ff_inner)
        self.expanded = like.new_empty(batch, 2 * params.conv_expansion * dim)
        self.content, self.gate = self.expanded.chunk(2, dim=1)
        self.heads = {
            scales: QKVBuffer(
                like, batch=batch, scales=scales, num_heads=params.num_heads, head_dim=params.head_dim
            )
            for scales in {1, len(params.window_sizes)}
        }
