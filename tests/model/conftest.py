"""Small models for the tests of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from coma_gen.config.schema import ModelParams
from coma_gen.model.conformer import Conformer

SMALL: dict[str, Any] = {
    "branches": ("half_feed_forward", "attention", "convolution", "half_feed_forward"),
    "dim": 12,
    "num_layers": 2,
    "num_heads": 2,
    "head_dim": 6,
    "window_sizes": (3, 7),
    "attention_position": "xpos",
    "position_embedding": "none",
    "max_seq_len": 512,
    "qk_rmsnorm": True,
    "num_streams": 4,
    "global_attention_layers": (),
    "kernel_size": 4,
    "conv_expansion": 2,
    "ff_expansion": 2.0,
    "embedding_dropout": 0.0,
    "attention_dropout": 0.0,
    "ff_dropout": 0.0,
    "conv_dropout": 0.0,
    "conditions": (),
}
VOCAB_SIZE = 11


@pytest.fixture(scope="session")
def make_params() -> Callable[..., ModelParams]:
    """A function from changes to a small shape."""
    return lambda **changes: ModelParams(**{**SMALL, **changes})


@pytest.fixture(scope="session")
def make_model(make_params: Callable[..., ModelParams]) -> Callable[..., Conformer]:
    """A function from changes to a small float64 model, every parameter moved away from its start."""

    def make(**changes: Any) -> Conformer:
        model = Conformer(params=make_params(**changes), vocab_size=VOCAB_SIZE, seed=3).double().eval()
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        return model

    return make


@pytest.fixture(scope="session")
def some_ids() -> Callable[..., torch.Tensor]:
    """A function from a shape to token ids, the same at every call."""
    return lambda *shape: torch.randint(VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(7))
