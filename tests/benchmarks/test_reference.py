"""The reference model computes the same outputs and gradients as the conformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.reference import Reference, reference_weights
from benchmarks.sizes import model_params
from coma_gen.model.conformer import Conformer

if TYPE_CHECKING:
    from benchmarks.sizes import Size


def perturb(model: Conformer) -> Conformer:
    """Converts to float64 and perturbs every parameter."""
    generator = torch.Generator().manual_seed(5)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


@pytest.mark.parametrize("length", [1, 8, 29])
@pytest.mark.parametrize("changes", [{}, {"window_sizes": (5, 1, 3), "num_streams": 2, "kernel_size": 1}])
def test_outputs_and_gradients_are_equal(length: int, changes: dict[str, Any], tiny: Size) -> None:
    params = model_params(**{**tiny.model.model_dump(), **changes})
    ours = perturb(Conformer(params=params, vocab_size=tiny.vocab_size, seed=3))
    plain = Reference(params, tiny.vocab_size).double()
    plain.load_state_dict(reference_weights(ours.state_dict(), params))
    input_ids = torch.randint(tiny.vocab_size, (2, length), generator=torch.Generator().manual_seed(7))
    actual, expected = ours(input_ids), plain(input_ids)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)
    weight = torch.randn(actual.shape, generator=torch.Generator().manual_seed(1), dtype=actual.dtype)
    for logits in (actual, expected):
        (logits * weight).sum().backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    translated = reference_weights(gradients, params)
    of_plain = {name: parameter.grad for name, parameter in plain.named_parameters()}
    assert translated.keys() == of_plain.keys()
    for name, gradient in of_plain.items():
        torch.testing.assert_close(
            translated[name], gradient, rtol=1e-9, atol=1e-8, msg=lambda t, n=name: f"{n}: {t}"
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_position": "rotary"},
        {"num_streams": 1},
        {"window_sizes": (4,)},
        {"global_attention_layers": (0,)},
    ],
)
def test_unsupported_configurations_are_refused(changes: dict[str, Any], tiny: Size) -> None:
    with pytest.raises(ValueError, match="supported"):
        Reference(model_params(**{**tiny.model.model_dump(), **changes}), tiny.vocab_size)
