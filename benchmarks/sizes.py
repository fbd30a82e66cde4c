"""The model sizes that are measured, and the number of floating-point operations of a training step.

Shapes: B batch, T tokens, D dim, G window sizes, H heads, d head dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.config.load import load_params
from coma_gen.config.schema import ModelParams, TrainParams

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
FORWARD_AND_BACKWARD = 3
"""A matrix product needs one product in the forward pass and two in the backward pass, one per factor."""
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Size:
    """A model size, and the depth of a plain transformer of equal width with as many parameters.

    Attributes:
        name: Name in the tables.
        model: Our model shape.
        vocab_size: V.
        batch: B of a training step.
        tokens: T of a training step.
        peer_layers: Number of layers of a plain transformer of the same width.
        peer_ff_mults: Peer -> width of its feed-forward layer / D.
    """

    name: str
    model: ModelParams
    vocab_size: int
    batch: int
    tokens: int
    peer_layers: int
    peer_ff_mults: Mapping[str, float]


def model_params(**changes: Any) -> ModelParams:
    """Returns the model shape of params.yaml with some changes, and without dropout."""
    shape = load_params(PARAMS).model.model_dump()
    dropouts = {key: 0.0 for key in shape if key.endswith("_dropout")}
    return ModelParams.model_validate(shape | dropouts | changes)


def train_params() -> TrainParams:
    """Returns the train params of params.yaml, but with AdamW, as the peers use it."""
    return load_params(PARAMS).train.model_copy(update={"optimizer": "adamw"})


def sizes() -> dict[str, Size]:
    """Returns the measured sizes by name, largest first; 1M is that of presets/maestro-cpu.yaml."""
    shared: dict[str, Any] = {
        "head_dim": 64,
        "window_sizes": (64, 256, 512),
        "attention_position": "xpos",
        "position_embedding": "none",
        "qk_rmsnorm": True,
        "num_streams": 4,
        "global_attention_layers": (),
        "kernel_size": 31,
        "conv_expansion": 2,
        "ff_expansion": 4.0,
    }
    large = model_params(dim=512, num_layers=4, num_heads=8, **shared)
    small = model_params(dim=256, num_layers=2, num_heads=4, **shared)
    tiny = shared | {"head_dim": 32, "window_sizes": (32, 128, 512)}
    smallest = model_params(dim=128, num_layers=2, num_heads=2, **tiny)
    large_peers = {"x-transformers": 3.75, "local-attention": 3.5625, "gpt2": 3.625}
    small_peers = {"x-transformers": 3.75, "local-attention": 3.375, "gpt2": 3.5}
    smallest_peers = {"x-transformers": 3.8125, "local-attention": 3.4375, "gpt2": 2.65625}
    return {
        "36M": Size("36M", large, 434, batch=1, tokens=1024, peer_layers=12, peer_ff_mults=large_peers),
        "5M": Size("5M", small, 434, batch=1, tokens=1024, peer_layers=6, peer_ff_mults=small_peers),
        "1M": Size("1M", smallest, 328, batch=2, tokens=512, peer_layers=6, peer_ff_mults=smallest_peers),
    }


def visible_pairs(tokens: int, window: int | None) -> int:
    """Counts pairs of a query and a visible key: itself and up to `window` preceding tokens."""
    return sum(min(at, tokens if window is None else window) + 1 for at in range(tokens))


def step_flops(size: Size) -> int:
    """Counts the floating-point operations of a training step's matrix products: all linear layers, and the
    attention products within the bands.

    Norms, softmax, rotation, depthwise convolution, residual streams and the optimizer are omitted, since
    they are bound by memory rather than arithmetic.
    """
    model, tokens = size.model, size.batch * size.tokens
    inner, scales = model.num_heads * model.head_dim, len(model.window_sizes)
    wide = model.conv_expansion * model.dim
    layer = 4 * scales * model.dim * inner  # queries, keys, values, output
    layer += 2 * 2 * model.dim * model.ff_inner  # two feed-forwards of two matrices
    layer += 3 * model.dim * wide  # the convolution module's two pointwise layers
    linear = 2 * tokens * (model.num_layers * layer + model.dim * size.vocab_size)
    windows = [*model.window_sizes * model.num_layers, *[None] * len(model.global_attention_layers)]
    pairs = size.batch * sum(visible_pairs(size.tokens, window) for window in windows)
    return FORWARD_AND_BACKWARD * (linear + 2 * 2 * pairs * inner)  # scores, and weights times values
