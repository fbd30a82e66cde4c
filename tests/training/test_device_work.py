"""GPU efficiency with stand-ins: deferred reads of the loss, recorded passes, prefetched windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from coma_gen.core.errors import UserError
from coma_gen.training import loop, step_gradient
from coma_gen.training.batches import BatchQueue
from coma_gen.training.gradients import add_gradient
from coma_gen.training.recorded import RecordedGradient, try_recording
from coma_gen.training.step_gradient import StepGradient

CPU = torch.device("cpu")
READING = ("aten._local_scalar_dense.default", "aten.is_nonzero.default", "aten.equal.default")
"""What a device must be waited for."""


class Reads(TorchDispatchMode):
    """Counts what would wait for a device, by the step of the loop that it happens in."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[str(func)] += str(func) in READING
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return sum(self.count.values())


@pytest.fixture
def deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, figures are read for a row alone."""
    monkeypatch.setattr(loop._TrainLoop, "reads_each_step", False)


def reads_of_each_step(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Step -> what waited in it; filled while a run goes on."""
    real, found = loop._TrainLoop.take_step, {}

    def take_step(self: Any, step: int, batches: Any) -> int:
        with Reads() as reads:
            tokens = real(self, step, batches)
        found[step] = reads.total
        return tokens

    monkeypatch.setattr(loop._TrainLoop, "take_step", take_step)
    return found


def test_figures_that_are_read_late_are_the_same(
    trainer: ModuleType, tmp_path: Path, uninterrupted: str, deferred: None
) -> None:
    assert trainer.digest(trainer.train(tmp_path / "run")) == uninterrupted


def test_a_step_without_a_row_reads_nothing(
    trainer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"optimizer": "adamw", "log_every": 5, "validate_every": 10, "checkpoint_every": 10}
    each = reads_of_each_step(monkeypatch)
    trainer.train(tmp_path / "eager", **settings)
    assert min(each.values()) >= 3, "two losses and a norm"
    inner = {step: each[step] for step in (2, 3, 4, 6, 7, 8, 9)}
    monkeypatch.setattr(loop._TrainLoop, "reads_each_step", False)
    trainer.train(tmp_path / "late", **settings)
    saved = {step: before - each[step] for step, before in inner.items()}
    assert set(saved.values()) == {3}
    assert all(each[step] == 0 for step in inner), each


def test_a_loss_that_is_no_number_is_named_by_its_step_and_nothing_is_saved_after_it(
    trainer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deferred: None
) -> None:
    real, calls = step_gradient.accumulate_gradient, []

    def poisoned(*args: Any, **kwargs: Any) -> list[Tensor]:
        calls.append(kwargs["step"])
        nlls: list[Tensor] = real(*args, **kwargs)
        return [nll * float("nan") for nll in nlls] if kwargs["step"] == 5 else nlls

    monkeypatch.setattr(step_gradient, "accumulate_gradient", poisoned)
    with pytest.raises(UserError, match=r"train step 5: .*finite.*checkpoint of step 4 is kept"):
        trainer.train(tmp_path, log_every=100)
    assert calls[-1] == 6, "the next checkpoint reads"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000004",
    ]


def run_again(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A recorder for a CPU: a replay does the work again, and gives its result in the same tensor."""
    result = work()
    return lambda: result.copy_(work()) and None, result


def test_recorded_passes_take_the_same_steps(
    trainer: ModuleType, tmp_path: Path, uninterrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, two micro-batches a step, and gradients that stay where they are."""
    real = StepGradient.prepare
    addresses: dict[int, set[int]] = {}

    def prepare(self: Any, batches: BatchQueue, *, step: int) -> None:
        real(self, batches, step=step)
        passes = partial(add_gradient, self.model, bf16=self.bf16)
        options = {"shape": self.micro_batch_shape, "pad_id": self.pad_id, "device": CPU}
        self.add = try_recording(passes, **options, record=run_again)
        assert isinstance(self.add, RecordedGradient)

    def note_addresses(self: Any, step: int, batches: BatchQueue) -> Any:
        result = taken(self, step, batches)
        for number, parameter in enumerate(self.train_state.trainable):
            addresses.setdefault(number, set()).add(parameter.grad.data_ptr())
        return result

    taken = loop._TrainLoop.take_step
    monkeypatch.setattr(StepGradient, "prepare", prepare)
    monkeypatch.setattr(loop._TrainLoop, "take_step", note_addresses)
    assert trainer.digest(trainer.train(tmp_path)) == uninterrupted
    assert addresses and all(len(each) == 1 for each in addresses.values())


def test_passes_that_cannot_be_recorded_stay_plain(caplog: pytest.LogCaptureFixture) -> None:
    def plain(input_ids: Tensor, _: Tensor) -> Tensor:
        return input_ids.sum()

    def refuses(_: Callable[[], Tensor]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    assert try_recording(plain, shape=(2, 3), pad_id=0, device=CPU, record=refuses) is plain
    assert caplog.messages == [
        "train.cuda_graphs: the passes cannot be recorded; training runs in eager mode. "
        "RuntimeError: operation not permitted when stream is capturing"
    ]


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_windows_drawn_ahead_are_those_of_their_step(kind: str) -> None:
    drawn: list[int] = []

    def draw(step: int) -> tuple[np.ndarray, np.ndarray]:
        drawn.append(step)
        targets = np.full((2, 3), step)
        targets[0, 0] = -100
        return np.full((2, 3), step), targets

    with BatchQueue(draw, device=torch.device(kind), last=4) as batches:
        for step in (1, 2, 3, 4):
            batch = batches.take(step)
            assert batch.input_ids.eq(step).all() and batch.tokens == 5
    assert drawn == [1, 2, 3, 4]


def test_a_fault_of_windows_drawn_ahead_is_raised_at_their_step() -> None:
    def draw(step: int) -> tuple[np.ndarray, np.ndarray]:
        if step == 2:
            raise UserError
        return np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64)

    with BatchQueue(draw, device=torch.device("mps"), last=9) as batches:
        batches.take(1)
        with pytest.raises(UserError):
            batches.take(2)
