"""Peers have as many parameters as our models, and the floors count the stated operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks.peers import gpt2_logits, local_transformer, unique_parameters, x_transformer
from benchmarks.reference import Reference
from benchmarks.sizes import sizes, step_flops, visible_pairs
from coma_gen.model.conformer import Conformer

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.sizes import Size

PEERS = {
    "local_attention": local_transformer,
    "x_transformers": x_transformer,
    "transformers": gpt2_logits,
}


@pytest.mark.parametrize("name", list(sizes()))
@pytest.mark.parametrize("package", list(PEERS))
def test_peers_have_as_many_parameters(name: str, package: str) -> None:
    build: Callable[[Size], nn.Module] = PEERS[package]
    if package != "local_attention":
        pytest.importorskip(package, reason=f"{package} comes with the extra `bench`")
    size = sizes()[name]
    with torch.device("meta"):
        ours = unique_parameters(Reference(size.model, size.vocab_size))
        theirs = unique_parameters(build(size))
    assert abs(theirs / ours - 1) < 0.01


def test_the_names_say_the_size() -> None:
    counts = []
    for size in sizes().values():
        with torch.device("meta"):
            counts.append(unique_parameters(Reference(size.model, size.vocab_size)))
    assert [f"{count / 1e6:.0f}M" for count in counts] == ["36M", "5M", "1M"]


@given(st.integers(1, 40), st.none() | st.integers(1, 50))
def test_pairs_within_a_window(tokens: int, window: int | None) -> None:
    far = tokens if window is None else window
    pairs = sum(0 <= query - key <= far for query in range(tokens) for key in range(tokens))
    assert visible_pairs(tokens, window) == pairs


def test_a_step_is_three_times_its_linear_layers_and_bands(tiny: Size) -> None:
    model = Conformer(params=tiny.model, vocab_size=tiny.vocab_size, seed=0)
    numbers = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    linear = 2 * tiny.batch * tiny.tokens * numbers
    width = tiny.model.num_heads * tiny.model.head_dim
    pairs = sum(visible_pairs(tiny.tokens, window) for window in tiny.model.window_sizes)
    attention = tiny.model.num_layers * tiny.batch * pairs * width * 4
    assert step_flops(tiny) == 3 * (linear + attention)
