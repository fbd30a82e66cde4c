"""The optimized model against the plain one: outputs and the gradient of every parameter."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from coma_gen.model.conformer import Conformer
from coma_gen.model.reference import plain_logits

OPTIONS = itertools.product(["xpos", "rotary", "dynamic", "none"], [True, False], [(), (0,), (0, 1)], [1, 4])


def compare(model: Conformer, input_ids: torch.Tensor) -> None:
    fast = model(input_ids)
    plain = plain_logits(dict(model.named_parameters()), params=model.params, input_ids=input_ids)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-9)
    weight = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1), dtype=fast.dtype)
    fast_gradients = torch.autograd.grad((fast * weight).sum(), list(model.parameters()))
    plain_gradients = torch.autograd.grad((plain * weight).sum(), list(model.parameters()))
    for (name, _), actual, wanted in zip(
        model.named_parameters(), fast_gradients, plain_gradients, strict=True
    ):
        torch.testing.assert_close(
            actual, wanted, rtol=1e-9, atol=1e-8, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("position,qk_rmsnorm,global_layers,num_streams", list(OPTIONS))
def test_every_option(
    position: str,
    qk_rmsnorm: bool,
    global_layers: tuple[int, ...],
    num_streams: int,
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    model = make_model(
        attention_position=position,
        qk_rmsnorm=qk_rmsnorm,
        global_attention_layers=global_layers,
        num_streams=num_streams,
    )
    compare(model, some_ids(2, 29))


@pytest.mark.parametrize("position", ["xpos", "rotary", "dynamic", "none"])
@pytest.mark.parametrize(
    "changes",
    [
        {"window_sizes": (1, 20, 130), "global_attention_layers": (1,)},  # several query blocks of every kind
        {"window_sizes": (5,), "position_embedding": "learned", "num_streams": 2},
    ],
)
def test_more_tokens_than_a_block(
    position: str,
    changes: dict[str, object],
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    compare(make_model(attention_position=position, **changes), some_ids(1, 269))


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_size": 1},
        {"conv_expansion": 3, "ff_expansion": 1.3, "num_layers": 1},
        {"branches": ("attention", "feed_forward"), "num_streams": 1, "window_sizes": (300,)},
        {"branches": ("convolution", "feed_forward", "convolution", "attention", "half_feed_forward")},
        {"branches": ("feed_forward",), "global_attention_layers": (1,)},
    ],
)
def test_the_shortest_inputs_and_other_widths(
    length: int,
    changes: dict[str, object],
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    compare(make_model(**changes), some_ids(3, length))
