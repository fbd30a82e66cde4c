"""A model size so small that every benchmark runs in a second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from benchmarks.sizes import Size


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> Size:
    from benchmarks.sizes import Size, model_params

    shape = model_params(
        dim=16,
        num_layers=2,
        num_heads=2,
        head_dim=8,
        window_sizes=(4, 8),
        attention_position="xpos",
        position_embedding="none",
        qk_rmsnorm=True,
        num_streams=3,
        global_attention_layers=(),
        kernel_size=5,
    )
    mults = dict.fromkeys(("x-transformers", "local-attention", "gpt2"), 2.0)
    return Size("tiny", shape, 13, batch=2, tokens=20, peer_layers=2, peer_ff_mults=mults)
