"""Attention within a band against the package `local-attention` and against full masked attention."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_attention import LocalAttention

from coma_gen.model.local_attention import _KeyRangesFn, local_attention, query_blocks
from coma_gen.model.positions import Rotation, decay_rates, frequencies


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("position", ["xpos", "rotary", "none"])
@pytest.mark.parametrize("window", [1, 2, 5, 64, 100])
@pytest.mark.parametrize("length", [1, 37, 203])
def test_equals_the_package_local_attention(position: str, window: int, length: int) -> None:
    """With exact_windowsize a query of the package sees itself and the w tokens before it, as here.

    Its xPos decay base is w // 2 unless given; this project's is w / 2. Its
    tables are float32 and are replaced by exact ones, so that the comparison can be made in float64.
    """
    theirs = LocalAttention(
        window_size=window,
        causal=True,
        look_backward=1,
        exact_windowsize=True,
        autopad=True,
        dim=16,
        use_rotary_pos_emb=position != "none",
        use_xpos=position == "xpos",
        xpos_scale_base=window / 2,
    ).double()
    rotation = None
    if theirs.rel_pos is not None:
        theirs.rel_pos.inv_freq, theirs.rel_pos.scale = frequencies(16), decay_rates(16)
        rotation = Rotation(16, window / 2 if position == "xpos" else None)
    queries, keys, values = (vectors(2, 3, length, 16, seed=seed).requires_grad_() for seed in range(3))
    ours = local_attention(queries, keys, values, window=window, rotation=rotation, softmax_scale=16**-0.5)
    expected = theirs(queries, keys, values).transpose(1, 2)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)
    weight = vectors(2, length, 3, 16, seed=9)
    ours_gradients = torch.autograd.grad((ours * weight).sum(), [queries, keys, values])
    their_gradients = torch.autograd.grad((expected * weight).sum(), [queries, keys, values])
    for actual, wanted in zip(ours_gradients, their_gradients, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-8)


@given(
    length=st.integers(1, 300),
    context=st.integers(0, 200),
    window=st.one_of(st.none(), st.integers(1, 300)),
    padded=st.lists(st.integers(0, 200), min_size=2, max_size=2),
)
@settings(max_examples=60)
def test_equals_masked_attention_for_any_chunk(
    length: int, context: int, window: int | None, padded: list[int]
) -> None:
    padding = [min(row, context) for row in padded]
    queries = vectors(2, 1, length, 4)
    keys, values = (vectors(2, 1, context + length, 4, seed=seed) for seed in (1, 2))
    ours = local_attention(queries, keys, values, window=window, padding=padding, softmax_scale=0.5)
    own = torch.arange(context, context + length)[:, None]
    every = torch.arange(context + length)
    visible = (every <= own) & ((window is None) | (own - every <= (window or 0)))
    exists = every >= torch.tensor(padding)[:, None]
    scores = 0.5 * queries @ keys.mT
    scores = scores.masked_fill(~(visible & exists[:, None, None, :]), -torch.inf)
    expected = (scores.softmax(-1) @ values).transpose(1, 2)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@given(length=st.integers(1, 200), context=st.integers(0, 150), window=st.integers(1, 250))
@settings(max_examples=30)
def test_what_learns_takes_another_path_to_the_same_gradients(length: int, context: int, window: int) -> None:
    """Dropout of a share that drops nothing leads past the path of `_LearningBand`."""
    queries = vectors(2, 2, length, 4).requires_grad_()
    keys, values = (vectors(2, 2, context + length, 4, seed=seed).requires_grad_() for seed in (1, 2))
    weight = vectors(2, length, 2, 4, seed=3)
    results = []
    for dropout in (0.0, 1e-300):
        ours = local_attention(queries, keys, values, window=window, softmax_scale=0.7, dropout=dropout)
        results.append([ours, *torch.autograd.grad(ours, [queries, keys, values], weight)])
    for actual, wanted in zip(*results, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [1, 4, 70, None])
def test_each_bias_is_added_at_its_distance(window: int | None) -> None:
    queries, keys, values = (vectors(1, 2, 200, 4, seed=seed) for seed in range(3))
    biases = vectors(200 if window is None else window + 1, 2, seed=4)
    ours = local_attention(queries, keys, values, window=window, biases=biases, softmax_scale=1.0)
    distances = torch.arange(200)[:, None] - torch.arange(200)
    hidden = (distances < 0) | (distances >= biases.shape[0])
    scores = queries @ keys.mT + biases[distances.clamp(0, biases.shape[0] - 1)].permute(2, 0, 1)
    expected = (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values).transpose(1, 2)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "num_queries,num_keys,window,size", list(itertools.product([1, 7, 64], [64, 90], [1, 8, None], [3, 64]))
)
def test_blocks_hold_every_visible_pair_once(
    num_queries: int, num_keys: int, window: int | None, size: int
) -> None:
    blocks = query_blocks(num_queries, num_keys, window=window, size=size)
    assert [query for block in blocks for query in range(block.first, block.last)] == list(range(num_queries))
    for block in blocks:
        newest, oldest = num_keys - num_queries + block.last, num_keys - num_queries + block.first
        assert block.key_last == newest
        assert block.key_first == (0 if window is None else max(0, oldest - window))


def test_gradients_of_overlapping_ranges_add_up() -> None:
    keys = vectors(1, 2, 11, 3).requires_grad_()
    blocks = query_blocks(9, 11, window=4, size=2)
    assert torch.autograd.gradcheck(lambda x: _KeyRangesFn.apply(x, blocks), keys)


def test_dropout_acts_on_the_attention_weights() -> None:
    """With the identity as values the output shows the weights: some zero, the others twice as large."""
    queries, keys = vectors(64, 1, 8, 8), vectors(64, 1, 8, 8, seed=1)
    values = torch.eye(8, dtype=torch.float64).expand(64, 1, 8, 8)
    weights = local_attention(queries, keys, values, window=None, softmax_scale=1.0)[:, :, 0]
    dropped = local_attention(queries, keys, values, window=None, softmax_scale=1.0, dropout=0.5)[:, :, 0]
    visible = weights > 0
    zero = dropped[visible] == 0
    assert 0.45 < zero.double().mean() < 0.55
    torch.testing.assert_close(dropped[visible][~zero], 2 * weights[visible][~zero])
