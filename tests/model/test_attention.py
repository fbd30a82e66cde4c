"""The fused attention module against one module of the package `local-attention` per window size."""

from __future__ import annotations

import pytest
import torch
from local_attention.transformer import LocalMHA

from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.positions import decay_rates, frequencies

DIM, HEADS, WIDTH = 12, 2, 8


def randomized(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def one_scale(ours: MultiScaleAttention, scale: int, *, position: str, qk_rmsnorm: bool) -> LocalMHA:
    """The package's module with the weights of one scale of ours."""
    window, scales, size = ours.window_sizes[scale], len(ours.window_sizes), HEADS * WIDTH
    assert window is not None
    theirs = LocalMHA(
        dim=DIM,
        window_size=window,
        dim_head=WIDTH,
        heads=HEADS,
        causal=True,
        prenorm=True,
        qk_rmsnorm=qk_rmsnorm,
        use_xpos=position == "xpos",
        xpos_scale_base=window / 2,
        use_rotary_pos_emb=position != "none",
        exact_windowsize=True,
    ).double()
    if theirs.attn_fn.rel_pos is not None:
        theirs.attn_fn.rel_pos.inv_freq, theirs.attn_fn.rel_pos.scale = frequencies(WIDTH), decay_rates(WIDTH)
    with torch.no_grad():
        theirs.norm.load_state_dict(ours.norm.state_dict())
        theirs.to_qkv.weight.copy_(
            ours.qkv.weight.view(3, scales, size, DIM)[:, scale].reshape(3 * size, DIM)
        )
        theirs.to_out.weight.copy_(ours.out.weight[:, scale * size : (scale + 1) * size])
        if ours.query_gain is not None and ours.key_gain is not None:
            theirs.q_scale.copy_(ours.query_gain[scale])
            theirs.k_scale.copy_(ours.key_gain[scale])
    return theirs


@pytest.mark.parametrize("position", ["xpos", "rotary", "none"])
@pytest.mark.parametrize("qk_rmsnorm", [True, False])
@pytest.mark.parametrize("window_sizes", [(4,), (3, 10), (2, 5, 90)])
def test_equals_one_package_module_a_scale(
    position: str, qk_rmsnorm: bool, window_sizes: tuple[int, ...]
) -> None:
    ours = MultiScaleAttention(
        dim=DIM,
        num_heads=HEADS,
        head_dim=WIDTH,
        window_sizes=window_sizes,
        position=position,
        qk_rmsnorm=qk_rmsnorm,
        dropout=0.0,
    ).double()
    randomized(ours)
    x = torch.randn(2, 151, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shares = [1.0] if ours.scale_weights is None else ours.scale_weights.softmax(0).tolist()
    expected = sum(
        share * one_scale(ours, scale, position=position, qk_rmsnorm=qk_rmsnorm)(x)
        for scale, share in enumerate(shares)
    )
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-9)


def test_scales_start_with_equal_shares() -> None:
    module = MultiScaleAttention(
        dim=DIM, num_heads=1, head_dim=4, window_sizes=(2, 3), position="none", qk_rmsnorm=True, dropout=0.0
    )
    torch.testing.assert_close(module._fold_out_weight(), module.out.weight / 2)
