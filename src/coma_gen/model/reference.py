"""Reference implementation of the conformer for tests and benchmarks, without any optimization.

It computes whole sequences with masked (T, T) score matrices, one scale at a time with its own projections,
positions by their definition, and hyper-connections as einsums. It takes the weights of a `Conformer` by
name, so that outputs and gradients can be compared. It has no state, no conditions and no dropout.

Shapes: B batch, T tokens, D dim, S streams, H heads, d head dim, C channels, K kernel, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from coma_gen.config.schema import ModelParams

Weights = Mapping[str, Tensor]


def plain_logits(weights: Weights, *, params: ModelParams, input_ids: Tensor) -> Tensor:
    """Returns the next-token logits (B, T, V).

    Args:
        weights: Parameters of a conformer by name: its `state_dict()`, or `dict(model.named_parameters())` to
            compute gradients.
        params: Shape of the conformer.
        input_ids: (B, T).
    """
    x = weights["token_embedding.weight"][input_ids]
    if params.position_embedding == "learned":
        x = x + weights["position_embedding.weight"][: input_ids.shape[1]]
    streams = torch.stack([x] * params.num_streams, dim=2)
    for index in range(params.num_layers):
        streams = plain_block(_submodule(weights, f"blocks.{index}"), streams, params=params, index=index)
    normed = _layer_norm(_submodule(weights, "norm"), streams.sum(dim=2))
    return normed @ weights["logits.weight"].T


def plain_block(weights: Weights, streams: Tensor, *, params: ModelParams, index: int) -> Tensor:
    """Applies one block, (B, T, S, D) -> (B, T, S, D)."""
    names = ["global_attention"] if index in params.global_attention_layers else []
    for branch_index, name in enumerate((*names, *params.branches)):
        branch = partial(plain_branch, name, _submodule(weights, f"branches.{branch_index}"), params=params)
        streams = plain_hyper_connection(_submodule(weights, f"connections.{branch_index}"), streams, branch)
    return streams


def plain_branch(name: str, weights: Weights, x: Tensor, *, params: ModelParams) -> Tensor:
    """Applies the branch of that name, (B, T, D) -> (B, T, D)."""
    if name == "global_attention":
        return plain_attention(weights, x, params=params, windows=(None,))
    if name == "attention":
        return plain_attention(weights, x, params=params, windows=params.window_sizes)
    if name == "convolution":
        return plain_convolution(weights, x)
    return (0.5 if name == "half_feed_forward" else 1.0) * plain_feed_forward(weights, x)


def plain_hyper_connection(weights: Weights, streams: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies a branch to the streams, (B, T, S, D) -> (B, T, S, D)."""
    num_streams = streams.shape[2]
    if num_streams == 1:
        return streams + branch(streams.squeeze(2)).unsqueeze(2)
    normed = F.normalize(streams, dim=-1) * streams.shape[-1] ** 0.5 * weights["gain"]
    dynamic = torch.tanh(normed @ weights["dynamic"])
    alpha_scale, beta_scale = weights["dynamic_scale"]
    alpha = weights["static"][:, :-1] + alpha_scale * dynamic[..., :-1]  # (B, T, S, 1 + S)
    beta = weights["static"][:, -1] + beta_scale * dynamic[..., -1]  # (B, T, S)
    mix = torch.einsum("btsm,btsd->btmd", alpha, streams)
    written = torch.einsum("bts,btd->btsd", beta, branch(mix[:, :, 0]))
    return mix[:, :, 1:] + written


def plain_feed_forward(weights: Weights, x: Tensor) -> Tensor:
    """Applies a full feed-forward, (B, T, D) -> (B, T, D)."""
    hidden = _linear(_submodule(weights, "up"), _layer_norm(_submodule(weights, "norm"), x))
    return _linear(_submodule(weights, "down"), hidden * torch.sigmoid(hidden))


def plain_attention(
    weights: Weights, x: Tensor, *, params: ModelParams, windows: tuple[int | None, ...]
) -> Tensor:
    """Sums the attention of the scales, weighted, (B, T, D) -> (B, T, D)."""
    normed, heads = _layer_norm(_submodule(weights, "norm"), x), params.num_heads
    scales, size = len(windows), params.num_heads * params.head_dim
    shares = weights["scale_weights"].softmax(0) if scales > 1 else x.new_ones(1)
    distances = torch.arange(x.shape[1], device=x.device)[:, None] - torch.arange(x.shape[1], device=x.device)
    result = torch.zeros_like(x)
    for scale, window in enumerate(windows):
        # Rows of the fused projection: queries of all scales, keys of all scales, values of all scales.
        queries, keys, values = (
            _heads(normed @ weights["qkv.weight"][start : start + size].T, heads)
            for start in ((part * scales + scale) * size for part in range(3))
        )
        factor = params.head_dim**-0.5
        if params.qk_rmsnorm:
            queries = F.normalize(queries, dim=-1) * weights["query_gain"][scale]
            keys = F.normalize(keys, dim=-1) * weights["key_gain"][scale]
            factor = 8.0
        scores = factor * plain_scores(
            queries, keys, distances, window=window, position=params.attention_position
        )
        if params.attention_position == "dynamic":
            of_scale = slice(scale * heads, (scale + 1) * heads)
            scores = scores + plain_bias(_submodule(weights, "position_bias.layers"), distances)[of_scale]
        visible = distances >= 0 if window is None else (distances >= 0) & (distances <= window)
        attended = scores.masked_fill(~visible, float("-inf")).softmax(-1) @ values
        projection = weights["out.weight"][:, scale * size : (scale + 1) * size]
        result = result + shares[scale] * (attended.transpose(1, 2).flatten(2) @ projection.T)
    return result


def plain_scores(
    queries: Tensor, keys: Tensor, distances: Tensor, *, window: int | None, position: str
) -> Tensor:
    """Returns the scores (B, H, T, T) of queries and keys (B, H, T, d) at their distances.

    Under rotary positions pair i of dimensions contributes the dot product of two plane vectors, one rotated
    by distance x 10000^(-2i/d); xPos multiplies it by ((2i + 0.4 d) / 1.4 d) ^ (distance / base).
    """
    if position not in ("rotary", "xpos"):
        return queries @ keys.transpose(-1, -2)
    half = queries.shape[-1] // 2
    past, scores = distances.clamp(min=0).to(queries.dtype), 0.0 * (queries @ keys.transpose(-1, -2))
    for pair in range(half):
        qa, qb = queries[..., pair, None], queries[..., pair + half, None]
        ka, kb = keys[..., None, :, pair], keys[..., None, :, pair + half]
        angle = past * 10_000.0 ** (-pair / half)
        product = angle.cos() * (qa * ka + qb * kb) + angle.sin() * (qa * kb - qb * ka)
        if position == "xpos":
            base = 512.0 if window is None else window / 2
            product = product * ((pair + 0.4 * half) / (1.4 * half)) ** (past / base)
        scores = scores + product
    return scores


def plain_bias(weights: Weights, distances: Tensor) -> Tensor:
    """Returns the dynamic position bias at each distance, (all heads, T, T)."""
    hidden = torch.log1p(distances.clamp(min=0).to(weights["0.weight"].dtype))[..., None]
    for layer in ("0", "2"):
        hidden = _linear(_submodule(weights, layer), hidden)
        hidden = hidden * torch.sigmoid(hidden)
    return _linear(_submodule(weights, "4"), hidden).permute(2, 0, 1)


def plain_convolution(weights: Weights, x: Tensor) -> Tensor:
    """Applies the convolution module, (B, T, D) -> (B, T, D)."""
    expanded = _linear(_submodule(weights, "expand"), _layer_norm(_submodule(weights, "norm"), x))
    content, gate = expanded.chunk(2, dim=-1)
    inputs = content * torch.sigmoid(gate)
    kernels = weights["depthwise_weight"]  # (C, K); the last tap is applied to the current token
    kernel, length = kernels.shape[1], x.shape[1]
    padded = F.pad(inputs, (0, 0, kernel - 1, 0))
    convolved = weights["depthwise_bias"].expand_as(inputs)
    for tap in range(kernel):
        convolved = convolved + kernels[:, tap] * padded[:, tap : tap + length]
    swished = convolved * torch.sigmoid(convolved)
    return _linear(_submodule(weights, "contract"), _layer_norm(_submodule(weights, "channel_norm"), swished))


def _submodule(weights: Weights, prefix: str) -> Weights:
    """Selects the weights below `prefix` and strips it from their names."""
    return {
        name[len(prefix) + 1 :]: tensor for name, tensor in weights.items() if name.startswith(prefix + ".")
    }


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H d) -> (B, H, T, d)."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _linear(weights: Weights, x: Tensor) -> Tensor:
    return x @ weights["weight"].T + weights["bias"]


def _layer_norm(weights: Weights, x: Tensor) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights["weight"]
    return scaled + weights["bias"] if "bias" in weights else scaled
