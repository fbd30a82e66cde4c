"""One token at a time: when the short way is taken, and what it is worked out from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from coma_gen.model.conformer import Conformer


def test_the_short_way_is_for_single_tokens_without_gradients(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(ff_dropout=0.5), some_ids(2, 6)
    state = model.empty_state(2)
    with torch.no_grad():
        model(ids[:, :3], state)
        assert state.one_token is None
        model.train()
        model(ids[:, 3:4], state)
        assert state.one_token is None
    model.eval()
    model(ids[:, 4:5], state).sum().backward()
    assert state.one_token is None
    assert model.blocks[1].branches[1].qkv.weight.grad is not None
    with torch.no_grad():
        model(ids[:, 5:], state)
    assert state.one_token is not None
    assert state.copy().one_token is state.one_token


def test_a_new_state_sees_new_weights(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    """What is worked out from the weights belongs to a state: when they have changed, in place or not, a new
    state gives what the model gives.
    """
    model, ids = make_model(), some_ids(1, 12)

    def decoded() -> torch.Tensor:
        state = model.empty_state(1)
        with torch.inference_mode():
            return torch.cat([model(token, state) for token in ids.split(1, dim=1)], dim=1)

    before = decoded()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.8)
    after = decoded()
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, model(ids).detach(), rtol=0, atol=1e-9)
    for parameter in model.parameters():
        parameter.data = 1.1 * parameter.data
    torch.testing.assert_close(decoded(), model(ids).detach(), rtol=0, atol=1e-9)


def test_streams_of_zeros_are_no_division_by_zero(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(), some_ids(1, 4)
    with torch.no_grad():
        model.token_embedding.weight.zero_()
        for block in model.blocks:
            block.branches[1].norm.bias.zero_()
            block.branches[0].down.bias.zero_()
            block.branches[0].down.weight.zero_()
    state = model.empty_state(1)
    with torch.inference_mode():
        decoded = torch.cat([model(token, state) for token in ids.split(1, dim=1)], dim=1)
        torch.testing.assert_close(decoded, model(ids), rtol=0, atol=1e-9)


@pytest.mark.parametrize("position", ["xpos", "dynamic"])
def test_under_autocast_it_keeps_the_precision_of_the_weights(
    position: str, make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(attention_position=position).float(), some_ids(1, 40)
    state, plain = model.empty_state(1), model.empty_state(1)
    with torch.inference_mode():
        for token in ids.split(1, dim=1):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(token, state)
            assert torch.equal(logits, model(token, plain))
