"""Weight decay groups of AdamW, and its state through a checkpoint."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from coma_gen.training.optimizer import (
    OPTIMIZERS,
    Optimizers,
    build_optimizers,
    optimizer_tensors,
    restore_optimizers,
    trainable_parameters,
)


def test_decay_acts_on_matrices_only(trainer: ModuleType) -> None:
    model = trainer.make_model(attention_position="dynamic", position_embedding="learned")
    (optimizer,) = build_optimizers(model, trainer.make_params(optimizer="adamw", weight_decay=0.25))
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, others = (
        {
            names[p]
            for group in optimizer.param_groups
            if group["weight_decay"] == decay
            for p in group["params"]
        }
        for decay in (0.25, 0.0)
    )
    assert decayed | others == set(names.values()) and not decayed & others
    assert {
        "token_embedding.weight",
        "position_embedding.weight",
        "logits.weight",
        "blocks.0.branches.1.qkv.weight",
    } <= decayed
    words = ("bias", "norm.", "gain", "scale", "static", "dynamic_", "connections")
    assert not [
        name for name in decayed if any(word in name for word in words) and "position_bias" not in name
    ]
    assert {"norm.weight", "blocks.0.branches.1.query_gain", "blocks.0.branches.1.scale_weights"} <= others
    assert all(names_parameter.ndim >= 2 for names_parameter, name in names.items() if name in decayed)


def test_frozen_parameters_are_left_out(trainer: ModuleType) -> None:
    model = trainer.make_model()
    model.token_embedding.weight.requires_grad_(False)
    optimizers = build_optimizers(model, trainer.make_params())
    assert not any(model.token_embedding.weight is p for p in trainable_parameters(optimizers))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_state_comes_back_to_the_bit(trainer: ModuleType, name: str) -> None:
    params = trainer.make_params(optimizer=name)
    inputs = torch.arange(3, 11)[None]

    def learn(model: torch.nn.Module, optimizers: Optimizers, times: int) -> None:
        model.eval()
        for _ in range(times):
            model.zero_grad()
            model(inputs).square().sum().backward()
            for optimizer in optimizers:
                optimizer.step()

    model = trainer.make_model()
    optimizers = build_optimizers(model, params)
    assert optimizer_tensors(optimizers, model) == {}
    learn(model, optimizers, 3)
    saved = {name: value.clone() for name, value in optimizer_tensors(optimizers, model).items()}
    other = trainer.make_model()
    other.load_state_dict(model.state_dict())
    fresh = build_optimizers(other, params)
    restore_optimizers(fresh, other, saved)
    learn(model, optimizers, 2)
    learn(other, fresh, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    again = optimizer_tensors(fresh, other)
    assert all(
        torch.equal(value, again[name]) for name, value in optimizer_tensors(optimizers, model).items()
    )
