"""The reference model: the same function as `Conformer`, built from standard components.

A straightforward implementation, not optimized for speed, as a baseline for the benchmarks:

- bucketed local attention: queries in blocks of w tokens attend to 2w keys, those of their own block and the
  previous one, half of which are masked;
- a separate projection and attention for each window size;
- hyper-connections as einsums, differentiated by autograd;
- `nn.Conv1d` on (batch, channel, token), pointwise and depthwise.

    window 3, tokens 0 ... 7        keys of a bucket (2w)
    queries 0 1 2                   - - -  0 1 2
    queries 3 4 5                   0 1 2  3 4 5
    queries 6 7 -                   3 4 5  6 7 -

It supports only the measured configuration: xPos positions, normalized queries and keys, several window sizes
and streams, conformer blocks; no global layers, dropout or cache.

Shapes: B batch, T tokens, D dim, S streams, H heads, d head dim, w window, N buckets, C channels, K kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from coma_gen.config.schema import ModelParams
from coma_gen.model.reference import plain_hyper_connection

BRANCHES = ("half_feed_forward", "attention", "convolution", "half_feed_forward")


class FeedForward(nn.Module):
    """0.5 x [LayerNorm, Linear, swish, Linear]."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(params.dim)
        self.up = nn.Linear(params.dim, params.ff_inner)
        self.down = nn.Linear(params.ff_inner, params.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        half: Tensor = 0.5 * self.down(F.silu(self.up(self.norm(x))))
        return half


def _rotate(x: Tensor, angles: Tensor, growth: Tensor) -> Tensor:
    """Rotates `x` (..., n, d) by angles (n, d) and scales it by growth (n, d)."""
    first, second = x.chunk(2, dim=-1)
    return (x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()) * growth


def bucketed_attention(queries: Tensor, keys: Tensor, values: Tensor, *, window: int, scale: float) -> Tensor:
    """Local attention with xPos, in buckets.

    Args:
        queries: (B, H, T, d).
        keys: (B, H, T, d).
        values: (B, H, T, d).
        window: w, number of preceding tokens that a query attends to.
        scale: Factor of the dot products.

    Returns:
        (B, H, T, d).
    """
    length, size = queries.shape[2], queries.shape[3]
    missing = -length % window
    queries, keys, values = (
        rearrange(F.pad(part, (0, 0, 0, missing)), "b h (n w) d -> b h n w d", w=window)
        for part in (queries, keys, values)
    )
    keys, values = (
        torch.cat((F.pad(part, (0, 0, 0, 0, 1, 0))[:, :, :-1], part), dim=3) for part in (keys, values)
    )  # (B, H, N, 2w, d)
    positions = torch.arange(-window, window, device=queries.device, dtype=queries.dtype)
    pairs = torch.arange(0, size, 2, device=queries.device, dtype=queries.dtype)
    angles = torch.cat((positions[:, None] * 10_000.0 ** (-pairs / size),) * 2, dim=-1)
    decay = ((pairs + 0.4 * size) / (1.4 * size)) ** (positions[:, None] / (window / 2))
    growth = torch.cat((decay, decay), dim=-1)
    queries = _rotate(queries, angles[window:], growth[window:])
    keys = _rotate(keys, angles, 1 / growth)
    scores = torch.einsum("bhnqd,bhnkd->bhnqk", queries, keys) * scale
    distances = positions[window:, None] - positions
    visible = ((distances >= 0) & (distances <= window)).repeat(queries.shape[2], 1, 1)
    visible[0, :, :window] = False  # nothing comes before the first bucket
    weights = scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhnqk,bhnkd->bhnqd", weights, values).flatten(2, 3)[:, :, :length]


class OneScale(nn.Module):
    """Local attention of one window size, with separate projections."""

    def __init__(self, params: ModelParams, window: int) -> None:
        super().__init__()
        inner = params.num_heads * params.head_dim
        self.window, self.heads = window, params.num_heads
        self.qkv = nn.Linear(params.dim, 3 * inner, bias=False)
        self.out = nn.Linear(inner, params.dim, bias=False)
        self.query_gain = nn.Parameter(torch.ones(params.head_dim))
        self.key_gain = nn.Parameter(torch.ones(params.head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        queries, keys, values = (
            rearrange(part, "b t (h d) -> b h t d", h=self.heads) for part in self.qkv(x).chunk(3, dim=-1)
        )
        queries = F.normalize(queries, dim=-1) * self.query_gain
        keys = F.normalize(keys, dim=-1) * self.key_gain
        heads = bucketed_attention(queries, keys, values, window=self.window, scale=8.0)
        attended: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return attended


class Attention(nn.Module):
    """Attention of each window size, and their weighted sum."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(params.dim)
        self.scales = nn.ModuleList(OneScale(params, window) for window in params.window_sizes)
        self.scale_weights = nn.Parameter(torch.zeros(len(params.window_sizes)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        normed, shares = self.norm(x), self.scale_weights.softmax(dim=0)
        stacked = torch.stack([scale(normed) for scale in self.scales])
        return torch.einsum("g,gbtd->btd", shares, stacked)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, T), gain only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)."""
        mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, unbiased=False, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.weight


class Convolution(nn.Module):
    """LayerNorm, pointwise, GLU, causal depthwise, swish, channel norm, pointwise."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        channels = params.conv_expansion * params.dim
        self.past = params.kernel_size - 1
        self.norm = nn.LayerNorm(params.dim)
        self.expand = nn.Conv1d(params.dim, 2 * channels, 1)
        self.depthwise = nn.Conv1d(channels, channels, params.kernel_size, groups=channels)
        self.channel_norm = ChannelNorm(channels)
        self.contract = nn.Conv1d(channels, params.dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        inputs = F.glu(self.expand(self.norm(x).transpose(1, 2)), dim=1)
        convolved = self.depthwise(F.pad(inputs, (self.past, 0)))
        result: Tensor = self.contract(self.channel_norm(F.silu(convolved))).transpose(1, 2)
        return result


class HyperConnection(nn.Module):
    """Residual streams around a branch, as einsums."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        streams = params.num_streams
        self.gain = nn.Parameter(torch.ones(params.dim))
        self.dynamic = nn.Parameter(torch.zeros(params.dim, streams + 2))
        self.static = nn.Parameter(torch.zeros(streams, streams + 2))
        self.dynamic_scale = nn.Parameter(torch.zeros(2))

    def forward(self, streams: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, T, S, D) -> (B, T, S, D)."""
        return plain_hyper_connection(dict(self.named_parameters()), streams, branch)


class Block(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, each with a hyper-connection."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        kinds = {"attention": Attention, "convolution": Convolution, "half_feed_forward": FeedForward}
        self.branches = nn.ModuleList(kinds[name](params) for name in BRANCHES)
        self.connections = nn.ModuleList(HyperConnection(params) for _ in BRANCHES)

    def forward(self, streams: Tensor) -> Tensor:
        """(B, T, S, D) -> (B, T, S, D)."""
        for connection, branch in zip(self.connections, self.branches, strict=True):
            streams = connection(streams, branch)
        return streams


class Reference(nn.Module):
    """The whole model; set its weights with `load_state_dict(reference_weights(...))`."""

    def __init__(self, params: ModelParams, vocab_size: int) -> None:
        super().__init__()
        is_supported = params.attention_position == "xpos" and params.qk_rmsnorm
        is_supported &= params.num_streams > 1 and len(params.window_sizes) > 1
        is_supported &= params.branches == BRANCHES
        if not is_supported or params.global_attention_layers or params.position_embedding != "none":
            raise ValueError(
                "only xPos, qk norm, several windows and streams, and no global layers are supported"
            )
        self.params = params
        self.token_embedding = nn.Embedding(vocab_size, params.dim)
        self.blocks = nn.ModuleList(Block(params) for _ in range(params.num_layers))
        self.norm = nn.LayerNorm(params.dim)
        self.logits = nn.Linear(params.dim, vocab_size, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) -> logits (B, T, V)."""
        streams = torch.stack([self.token_embedding(input_ids)] * self.params.num_streams, dim=2)
        for block in self.blocks:
            streams = block(streams)
        logits: Tensor = self.logits(self.norm(streams.sum(dim=2)))
        return logits


def reference_weights(weights: Mapping[str, Tensor], params: ModelParams) -> dict[str, Tensor]:
    """Converts a conformer's weights, or their gradients, to the names and shapes of the reference."""
    scales = range(len(params.window_sizes))
    converted: dict[str, Tensor] = {}
    for name, weight in weights.items():
        stem, leaf = name.rsplit(".branches.1.", 1) if ".branches.1." in name else ("", name)
        here = f"{stem}.branches.1.scales"
        if leaf == "qkv.weight":  # rows: queries of all scales, keys of all scales, values of all scales
            of_scale = rearrange(weight, "(p g i) d -> g p i d", p=3, g=len(scales))
            converted |= {f"{here}.{g}.qkv.weight": of_scale[g].flatten(0, 1) for g in scales}
        elif leaf == "out.weight" and stem:
            columns = weight.chunk(len(scales), dim=1)
            converted |= {f"{here}.{g}.out.weight": columns[g] for g in scales}
        elif leaf in ("query_gain", "key_gain"):
            converted |= {f"{here}.{g}.{leaf}": weight[g] for g in scales}
        elif name.endswith(("expand.weight", "contract.weight")):
            converted[name] = weight[..., None]
        elif "depthwise" in name:
            kernels = weight[:, None] if name.endswith("weight") else weight
            converted[name.replace("depthwise_", "depthwise.")] = kernels
        elif name.endswith("channel_norm.weight"):
            converted[name] = weight[:, None]
        else:
            converted[name] = weight
    return converted
