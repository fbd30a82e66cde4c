"""The gradient of a step: any micro-batch size, weighted by tokens, clipped globally."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn import functional

from coma_gen.training.batches import Batch
from coma_gen.training.gradients import accumulate_gradient, clip_gradient
from coma_gen.training.loss import IGNORE

CPU = torch.device("cpu")
DRY = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "ff_dropout": 0.0, "conv_dropout": 0.0}


def windows() -> tuple[np.ndarray, np.ndarray]:
    """Eight windows of very different numbers of targets."""
    draws = np.random.default_rng(0)
    inputs, targets = draws.integers(3, 12, (2, 8, 16))
    for row, length in enumerate((16, 1, 3, 16, 2, 9, 1, 16)):
        targets[row, length:] = IGNORE
    return inputs, targets


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def batch(part: slice = slice(None)) -> Batch:
    inputs, targets = (torch.from_numpy(array[part]) for array in windows())
    return Batch(inputs, targets, int((targets != IGNORE).sum()))


def accumulate(model: torch.nn.Module, micro_batches: int, step: int = 1) -> float:
    model.zero_grad()
    nlls = accumulate_gradient(
        model, batch(), micro_batches=micro_batches, seed=0, step=step, device=CPU, bf16=False
    )
    assert len(nlls) == micro_batches
    return sum(map(float, nlls))


@pytest.mark.parametrize("micro_batches", [1, 2, 4, 8])
def test_equals_the_gradient_of_one_big_batch(trainer: ModuleType, micro_batches: int) -> None:
    model = trainer.make_model(**DRY).double()
    inputs, targets = (torch.from_numpy(array) for array in windows())
    loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    loss.backward()
    expected = gradients(model)
    loss_sum, tokens = accumulate(model, micro_batches), batch().tokens
    clip_gradient(list(model.parameters()), None, divisor=tokens)
    assert tokens == 64
    assert loss_sum / tokens == pytest.approx(loss.item(), rel=1e-6)
    for got, wanted in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-13)


def test_dropout_depends_on_step_and_micro_batch_only(trainer: ModuleType) -> None:
    model = trainer.make_model()
    first = accumulate(model, 4)
    torch.rand(7)
    assert accumulate(model, 4) == first
    assert accumulate(model, 4, step=2) != first
    assert accumulate(model, 2) != first


def test_parts_add_up_to_the_whole_with_its_dropout(trainer: ModuleType) -> None:
    model = trainer.make_model().double()
    whole = accumulate(model, 4)
    expected = gradients(model)
    model.zero_grad()
    parts = [
        accumulate_gradient(
            model,
            batch(half),
            micro_batches=2,
            first_micro_batch=first,
            seed=0,
            step=1,
            device=CPU,
            bf16=False,
        )
        for first, half in ((0, slice(0, 4)), (2, slice(4, 8)))
    ]
    assert sum(float(nll) for part in parts for nll in part) == pytest.approx(whole, rel=1e-6)
    for got, wanted in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-13)


def test_clips_to_the_norm_over_everything() -> None:
    one, two, idle = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    one.grad, two.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert float(clip_gradient([one, two, idle], None)) == pytest.approx(5.0)
    assert float(clip_gradient([one, two, idle], 10.0)) == pytest.approx(5.0)
    assert one.grad.tolist() == [3.0, 0.0]
    assert float(clip_gradient([one, two, idle], 0.5)) == pytest.approx(5.0)
    assert one.grad.tolist() == pytest.approx([0.3, 0.0], rel=1e-5)
    assert two.grad.tolist() == pytest.approx([0.0, 0.4], rel=1e-5)


@pytest.mark.parametrize(("clip_norm", "length"), [(None, 2.5), (10.0, 2.5), (1.0, 1.0)])
def test_divides_before_it_clips(clip_norm: float | None, length: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([30.0, 40.0])
    assert float(clip_gradient([parameter], clip_norm, divisor=20.0)) == pytest.approx(2.5)
    assert parameter.grad.norm().item() == pytest.approx(length, rel=1e-5)
