"""The number of steps until a deadline, with a fake clock."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from coma_gen.training import plan
from coma_gen.training.distributed import SINGLE_PROCESS
from coma_gen.training.plan import StepPlan
from coma_gen.training.progress import Progress
from coma_gen.training.signals import TrainingInterrupted


class Clock:
    """A clock that stands still unless it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(plan, "clock", made)
    return made


SETTINGS = {
    "steps": 10_000,
    "warmup_steps": 200,
    "log_every": 10,
    "validate_every": 100,
    "checkpoint_every": 50,
}


def make_plan(trainer: ModuleType, progress: Progress, **changes: Any) -> StepPlan:
    params = trainer.make_params(**{**SETTINGS, "max_minutes": 10.0, **changes})
    return StepPlan(params, progress, validation_tokens=320)  # as much as 10 steps of 32 tokens


def test_the_steps_that_are_left_are_those_that_fit(trainer: ModuleType, clock: Clock) -> None:
    progress = Progress()
    made = make_plan(trainer, progress)
    clock.now += 100  # compiling
    made.update(1, ranks=SINGLE_PROCESS)
    assert made.params.steps == 10_000, "one step tells nothing: it was the first"
    clock.now += 9
    made.update(10, ranks=SINGLE_PROCESS)
    # 491 s left; a step takes 1 s; a validation, reckoned as 10 steps, 10 s, the last and one in 100 steps.
    assert made.params.steps == 10 + int((491 - 10) / (1 + 10 / 100)) == progress.planned_steps
    assert made.params.warmup_steps == made.params.steps // 10
    assert progress.seconds == 109


def test_validations_and_checkpoints_are_reckoned_as_they_were(trainer: ModuleType, clock: Clock) -> None:
    made = make_plan(trainer, Progress())
    made.update(1, ranks=SINGLE_PROCESS)
    for work, seconds in (("validation", 4.0), ("checkpoint", 2.0)):
        with made.timed(work):
            clock.now += seconds
    clock.now += 99
    made.update(100, ranks=SINGLE_PROCESS)
    left = 600 - 105
    assert made.params.steps == 100 + int((left - 6) / (1 + 4 / 100 + 2 / 50))


def test_when_time_is_up_the_step_at_hand_is_the_last(trainer: ModuleType, clock: Clock) -> None:
    made = make_plan(trainer, Progress(), log_every=1000)
    made.update(1, ranks=SINGLE_PROCESS)
    clock.now += 500
    made.update(2, ranks=SINGLE_PROCESS)
    assert made.params.steps == 2, "there is no room for another step of 500 s"


def test_a_plan_has_no_more_steps_than_the_params_and_none_without_a_deadline(
    trainer: ModuleType, clock: Clock
) -> None:
    short = make_plan(trainer, Progress(), steps=30, warmup_steps=2)
    short.update(1, ranks=SINGLE_PROCESS)
    clock.now += 1
    short.update(10, ranks=SINGLE_PROCESS)
    assert short.params.steps == 30
    progress = Progress()
    free = make_plan(trainer, progress, max_minutes=None)
    free.update(10, ranks=SINGLE_PROCESS)
    assert free.params is free._params and progress == Progress()


@pytest.fixture
def steady(trainer: ModuleType, clock: Clock) -> torch.nn.Module:
    """A model whose passes take a second each, with a gradient or without."""
    model: torch.nn.Module = trainer.make_model()
    model.register_forward_hook(lambda *_: setattr(clock, "now", clock.now + 1.0))
    return model


DEADLINE = {
    "max_minutes": 1.0,
    "steps": 1000,
    "warmup_steps": 100,
    "validate_every": 10,
    "checkpoint_every": 10,
}


def test_a_run_ends_at_its_deadline_with_a_model(
    trainer: ModuleType, clock: Clock, steady: torch.nn.Module, tmp_path: Path
) -> None:
    """A step is of two passes; a validation of some."""
    result = trainer.train(tmp_path, model=steady, **DEADLINE)
    assert 50 <= clock.now - 1000 <= 60
    rows = result.curve.read_text().splitlines()
    assert rows[-1].startswith(f"{result.metrics['steps']},") and rows[-1].split(",")[-1]
    assert float(rows[-1].split(",")[3]) == pytest.approx(0.1 * 0.01), "the rate has decayed to its end"
    assert result.metrics["best"]["step"] and not result.metrics["stopped_early"]


def test_a_run_that_goes_on_has_what_was_left_of_its_time(
    trainer: ModuleType,
    clock: Clock,
    steady: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("coma_gen.training.signals.GracefulStop.reason", "a test")
        with pytest.raises(TrainingInterrupted):
            trainer.train(tmp_path, model=steady, **DEADLINE)
    spent = clock.now - 1000
    clock.now += 10_000  # on the way to another machine
    went_on = clock.now
    result = trainer.train(tmp_path, model=steady, **DEADLINE)
    assert 50 <= spent + clock.now - went_on <= 60
    assert result.metrics["best"]["step"]
