"""Softmax weights of the attention windows in each layer of a trained model."""

from __future__ import annotations

from typing import Any

from torch import nn

from coma_gen.model.attention import MultiScaleAttention


def window_shares(model: nn.Module) -> list[dict[str, Any]]:
    """Collects the window weights of every attention layer.

    Returns:
        A row for each attention layer and window: `layer` (from 1), `window` (visible tokens before the
        current one; None for all) and `share`, the softmax of the scale weights. Shares add up to 1 over a
        layer and are equal in an untrained model.
    """
    attentions = [module for module in model.modules() if isinstance(module, MultiScaleAttention)]
    rows = []
    for layer, attention in enumerate(attentions, start=1):
        weights = attention.scale_weights
        shares = [1.0] if weights is None else weights.detach().double().softmax(0).tolist()
        for window, share in zip(attention.window_sizes, shares, strict=True):
            rows.append({"layer": layer, "window": window, "share": share})
    return rows
