"""Muon against the plain formula in double precision and against torch's own, which rounds to bfloat16."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from coma_gen.model.conformer import hidden_matrices
from coma_gen.training.distributed import Distributed
from coma_gen.training.muon import COEFFICIENTS, Muon, orthogonalize
from coma_gen.training.optimizer import build_optimizers, set_learning_rate, trainable_parameters


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def iterated(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz as it is published, in double precision, on the matrix itself."""
    linear, cubic, quintic = COEFFICIENTS
    x = matrix.double() / matrix.double().norm()
    for _ in range(steps):
        x = linear * x + cubic * (x @ x.T @ x) + quintic * (x @ x.T @ x @ x.T @ x)
    return x


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (40, 16), (1, 7), (5, 1)])
def test_newton_schulz_is_the_published_one(shape: tuple[int, int]) -> None:
    matrices = drawn(3, *shape) * torch.tensor([1e-4, 1.0, 1e4])[:, None, None]
    wanted = torch.stack([iterated(matrix) for matrix in matrices])
    assert torch.allclose(orthogonalize(matrices).double(), wanted, atol=2e-4)


def test_singular_values_come_close_to_one_and_vectors_stay() -> None:
    left, _ = torch.linalg.qr(drawn(12, 12))
    right, _ = torch.linalg.qr(drawn(30, 30, seed=1))
    matrix = left * torch.logspace(0, -2, 12) @ right[:12]
    u, values, v = torch.linalg.svd(orthogonalize(matrix[None])[0], full_matrices=False)
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.allclose(left @ right[:12], u @ v, atol=1e-3)


def test_a_zero_matrix_stays_zero() -> None:
    assert torch.equal(orthogonalize(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_steps_are_those_of_torch_within_bfloat16(shape: tuple[int, int]) -> None:
    start, settings = drawn(*shape), {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.5}
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = Muon([{"params": [ours]}], **settings), torch.optim.Muon([theirs], **settings)
    for step in range(5):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = drawn(*shape, seed=step + 1)
            optimizer.step()
    moved = float((theirs.detach() - start).norm())
    assert float((ours - theirs).detach().norm()) < 0.04 * moved and moved > 0.1


def test_stacked_maps_are_made_orthogonal_alone() -> None:
    stacked, alone = torch.nn.Parameter(torch.zeros(12, 6)), torch.nn.Parameter(torch.zeros(4, 6))
    gradient = drawn(12, 6)
    stacked.grad, alone.grad = gradient, gradient[4:8].clone()
    optimizer = Muon(
        [{"params": [stacked], "parts": 3}, {"params": [alone]}], lr=1.0, momentum=0.9, weight_decay=0.0
    )
    optimizer.step()
    assert torch.equal(stacked[4:8], alone) and float(alone.detach().norm()) > 1


def test_ranks_share_the_work_and_get_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = drawn(5, 8, 16)
    summed: list[torch.Tensor] = []
    monkeypatch.setattr("torch.distributed.all_reduce", summed.append)
    for rank in range(3):
        Distributed(rank, 3, rank).divide(orthogonalize, matrices)
    assert [int((part.abs().sum((1, 2)) > 0).sum()) for part in summed] == [1, 2, 2]
    assert torch.allclose(sum(summed, torch.zeros(())), orthogonalize(matrices), atol=1e-6)


def test_hidden_matrices_and_only_they_are_muons(trainer: ModuleType) -> None:
    model = trainer.make_model(attention_position="dynamic", position_embedding="learned")
    names = {parameter: ".".join(name.split(".")[-2:]) for name, parameter in model.named_parameters()}
    assert {(names[weight], parts) for weight, parts in hidden_matrices(model).items()} == {
        ("up.weight", 1),
        ("down.weight", 1),
        ("qkv.weight", 3),
        ("out.weight", 1),
        ("expand.weight", 2),
        ("contract.weight", 1),
    }
    muon, adamw = build_optimizers(model, trainer.make_params(optimizer="muon"))
    assert set(trainable_parameters([muon])) == set(hidden_matrices(model))
    together = trainable_parameters([muon, adamw])
    assert set(together) == set(model.parameters()) and len(together) == len(set(together))


def test_each_group_keeps_its_own_peak_rate(trainer: ModuleType) -> None:
    params: dict[str, Any] = {"learning_rate": 0.004, "muon_learning_rate": 0.02, "embedding_rate_ratio": 3.0}
    model = trainer.make_model()
    muon, adamw = optimizers = build_optimizers(model, trainer.make_params(optimizer="muon", **params))
    set_learning_rate(optimizers, 0.5)
    assert {group["lr"] for group in muon.param_groups} == {0.01}
    rates = {parameter: group["lr"] for group in adamw.param_groups for parameter in group["params"]}
    assert rates.pop(model.token_embedding.weight) == pytest.approx(0.006)
    assert set(rates.values()) == {0.002}


def test_frozen_matrices_are_left_out(trainer: ModuleType) -> None:
    model = trainer.make_model()
    for weight in hidden_matrices(model):
        weight.requires_grad_(False)
    (adamw,) = build_optimizers(model, trainer.make_params(optimizer="muon"))
    assert not set(hidden_matrices(model)) & set(trainable_parameters([adamw]))
