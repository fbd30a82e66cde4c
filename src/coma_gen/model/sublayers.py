"""Builds the branches of a block from their names in `model.branches`."""

from __future__ import annotations

from coma_gen.config.schema import ModelParams
from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.convolution import CausalConvolution
from coma_gen.model.feed_forward import FeedForward

Branch = MultiScaleAttention | CausalConvolution | FeedForward


def build_branch(name: str, params: ModelParams) -> Branch:
    """Builds one branch of a block.

    Args:
        name: A name in `model.branches`, or global_attention.
        params: Shape of the model.
    """
    if name == "convolution":
        return CausalConvolution(
            dim=params.dim,
            expansion=params.conv_expansion,
            kernel_size=params.kernel_size,
            dropout=params.conv_dropout,
        )
    if name.endswith("feed_forward"):
        return FeedForward(
            dim=params.dim,
            inner=params.ff_inner,
            dropout=params.ff_dropout,
            share=0.5 if name == "half_feed_forward" else 1.0,
        )
    return MultiScaleAttention(
        dim=params.dim,
        num_heads=params.num_heads,
        head_dim=params.head_dim,
        window_sizes=(None,) if name == "global_attention" else params.window_sizes,
        position=params.attention_position,
        qk_rmsnorm=params.qk_rmsnorm,
        dropout=params.attention_dropout,
    )
