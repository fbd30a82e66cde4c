"""Rotations depend only on distances, at any position, and never overflow."""

from __future__ import annotations

import math

import pytest
import torch

from coma_gen.model.positions import DynamicPositionBias, Rotation, _RotaryFn, decay_rates, frequencies


def vectors(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("decay_base", [None, 2.5])
def test_products_follow_the_definition(decay_base: float | None) -> None:
    queries, keys = vectors(1, 1, 5, 8), vectors(1, 1, 9, 8)
    turned_queries, turned_keys = Rotation(8, decay_base).rotate(queries, keys)
    products = (turned_queries @ turned_keys.mT)[0, 0]
    for t in range(5):
        for n in range(4 + t + 1):
            distance, expected = 4 + t - n, 0.0
            for pair in range(4):
                angle = distance * float(frequencies(8)[pair])
                qa, qb = queries[0, 0, t, pair].item(), queries[0, 0, t, pair + 4].item()
                ka, kb = keys[0, 0, n, pair].item(), keys[0, 0, n, pair + 4].item()
                product = math.cos(angle) * (qa * ka + qb * kb) + math.sin(angle) * (qa * kb - qb * ka)
                decay = 1.0 if decay_base is None else float(decay_rates(8)[pair]) ** (distance / decay_base)
                expected += decay * product
            assert products[t, n].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decay_base", [None, 0.5, 1.0, 4.0, 256.0])
@pytest.mark.parametrize("num_keys", [0, 1000, 20_000])
def test_nothing_overflows_and_visible_products_do_not_vanish(
    decay_base: float | None, num_keys: int
) -> None:
    rotation = Rotation(8, decay_base)
    length = rotation.max_queries
    queries = torch.ones(1, 1, length, 8)
    turned_queries, turned_keys = rotation.rotate(queries, torch.ones(1, 1, length + num_keys, 8))
    assert torch.isfinite(turned_queries @ turned_keys.mT).all()
    own = (turned_queries * turned_keys[:, :, -length:]).sum(-1)
    torch.testing.assert_close(own, torch.full_like(own, 8.0), rtol=1e-4, atol=0)


def test_the_table_may_be_made_under_inference_mode() -> None:
    rotation, queries = Rotation(4, 17.25), vectors(1, 1, 3, 4)
    with torch.inference_mode():
        expected, _ = rotation.rotate(queries, queries)
    queries.requires_grad_()
    actual, _ = rotation.rotate(queries, queries)
    actual.sum().backward()
    assert torch.equal(actual.detach(), expected.clone())


def test_gradients_of_the_turning() -> None:
    cosines, sines = vectors(5, 8), vectors(5, 8) + 1.0
    x = vectors(2, 3, 5, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: _RotaryFn.apply(x, cosines, sines), x)


def test_an_odd_head_cannot_be_turned() -> None:
    with pytest.raises(ValueError, match="even"):
        Rotation(5)


def test_dynamic_bias_is_a_function_of_the_distance() -> None:
    bias = DynamicPositionBias(num_heads=3, hidden_dim=8)
    assert bias(7).shape == (7, 3)
    torch.testing.assert_close(bias(20)[:7], bias(7))
