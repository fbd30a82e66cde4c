"""The weight that each layer gives to each of its window sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coma_gen.evaluation.window_weights import window_shares
from coma_gen.model.attention import MultiScaleAttention


def attention(*window_sizes: int | None) -> MultiScaleAttention:
    return MultiScaleAttention(
        dim=8,
        num_heads=1,
        head_dim=4,
        window_sizes=window_sizes,
        position="none",
        qk_rmsnorm=False,
        dropout=0.0,
    )


def test_shares_are_the_softmax_of_each_layer_s_weights() -> None:
    first, second = attention(4, 16), attention(4, 16)
    assert second.scale_weights is not None
    second.scale_weights.data = torch.tensor([0.0, 1.0])
    rows = window_shares(nn.ModuleList([nn.ModuleList([nn.Linear(1, 1), first]), second]))
    assert [(row["layer"], row["window"]) for row in rows] == [(1, 4), (1, 16), (2, 4), (2, 16)]
    assert [row["share"] for row in rows[:2]] == [0.5, 0.5]
    assert rows[3]["share"] / rows[2]["share"] == pytest.approx(2.718281828, rel=1e-6)
    assert rows[2]["share"] + rows[3]["share"] == pytest.approx(1.0)


def test_a_single_window_has_all() -> None:
    assert window_shares(attention(None)) == [{"layer": 1, "window": None, "share": 1.0}]
    assert window_shares(nn.Linear(1, 1)) == []
