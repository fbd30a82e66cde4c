"""The training loop: learning, records, best weights, early stopping, clipping, augmentation."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from coma_gen.core.errors import UserError
from coma_gen.training.loss import validation_nll
from coma_gen.training.schedule import learning_rate_factor
from coma_gen.training.signals import GracefulStop, TrainingInterrupted

GETS_WORSE: dict[str, Any] = {
    "steps": 60,
    "learning_rate": 0.3,
    "warmup_steps": 0,
    "validate_every": 2,
    "early_stopping": 3,
}
"""Settings of a run that is best somewhere in its middle."""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_learns_a_periodic_sequence(trainer: ModuleType, tmp_path: Path, precision: str) -> None:
    result = trainer.train(
        tmp_path,
        train_pieces=trainer.circle(200),
        validation_pieces=trainer.circle(40),
        precision=precision,
        augment=False,
        steps=100,
        learning_rate=0.03,
        log_every=20,
        validate_every=50,
        checkpoint_every=100,
        micro_batch=4,
        seq_len=16,
    )
    # Chance is ln 12 = 2.48, and ln 3 = 1.10 for who knows the three tokens but not their order.
    assert result.metrics["best"]["validation_nll"] < 0.6
    assert all(value.dtype == torch.float32 for value in result.last_state.values())


def test_streams_in_bfloat16_learn_and_go_on_with_the_same_bits(
    trainer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"precision": "bf16", "streams": "bf16"}
    straight = trainer.train(tmp_path / "straight", **settings)
    with monkeypatch.context() as patch:
        patch.setattr(GracefulStop, "reason", "a test")
        for _ in range(5):
            with pytest.raises(TrainingInterrupted):
                trainer.train(tmp_path / "stopped", **settings)
    assert trainer.digest(trainer.train(tmp_path / "stopped", **settings)) == trainer.digest(straight)
    wide = trainer.train(tmp_path / "wide", precision="bf16")
    assert trainer.digest(wide) != trainer.digest(straight)
    nll = straight.metrics["best"]["validation_nll"]
    assert nll == pytest.approx(wide.metrics["best"]["validation_nll"], rel=0.02)
    assert all(value.dtype == torch.float32 for value in straight.last_state.values())


def test_what_a_run_hands_back(trainer: ModuleType, tmp_path: Path) -> None:
    result = trainer.train(tmp_path)
    table, params = rows(result.curve), trainer.make_params()
    assert result.curve.read_text().startswith(
        "step,tokens,train_loss,learning_rate,grad_norm,validation_nll\n"
    )
    assert [row["step"] for row in table] == ["3", "4", "6", "8", "9", "10"]
    assert [row["step"] for row in table if row["validation_nll"]] == ["4", "8", "10"]
    for row in table:
        assert float(row["learning_rate"]) == pytest.approx(
            params.learning_rate * learning_rate_factor(int(row["step"]), params), rel=1e-5
        )
        assert float(row["train_loss"]) > 0 and float(row["grad_norm"]) > 0
    metrics = result.metrics
    assert metrics["steps"] == 10 and metrics["tokens"] == int(table[-1]["tokens"]) > 0
    assert metrics["epochs"] == metrics["tokens"] / 101
    assert metrics["parameters"] == sum(p.numel() for p in trainer.make_model().parameters())
    assert metrics["train_loss"] == pytest.approx(float(table[-1]["train_loss"]), rel=1e-5)
    assert metrics["last"]["validation_nll"] == pytest.approx(float(table[-1]["validation_nll"]), rel=1e-5)
    best = min((row for row in table if row["validation_nll"]), key=lambda row: float(row["validation_nll"]))
    assert str(metrics["best"]["step"]) == best["step"]
    assert metrics["stopped_early"] is False
    assert (tmp_path / "speed.csv").read_text().startswith("step,tokens_per_second,tokens_per_cpu_second\n3,")


def test_best_weights_are_those_of_the_best_validation(trainer: ModuleType, tmp_path: Path) -> None:
    long = trainer.train(tmp_path, **GETS_WORSE)
    model = trainer.make_model()
    model.load_state_dict(long.best_state)
    split = trainer.Tokens(trainer.VALIDATION)
    nll = validation_nll(model, split, seq_len=8, batch=2, pad_id=0, device=torch.device("cpu"), bf16=False)
    assert nll == long.metrics["best"]["validation_nll"]
    assert nll < long.metrics["last"]["validation_nll"]


def test_train_loss_is_the_mean_over_the_tokens_since_the_last_row(
    trainer: ModuleType, tmp_path: Path
) -> None:
    each = rows(trainer.train(tmp_path / "each", log_every=1).curve)
    some = rows(trainer.train(tmp_path / "some", log_every=5).curve)
    tokens = [0, *(int(row["tokens"]) for row in each)]
    nats = [
        float(row["train_loss"]) * (after - before)
        for row, before, after in zip(each, tokens, tokens[1:], strict=False)
    ]
    before = 0
    for row in some:
        step = int(row["step"])
        expected = sum(nats[before:step]) / (tokens[step] - tokens[before])
        assert float(row["train_loss"]) == pytest.approx(expected, rel=1e-5)
        before = step


def test_early_stopping(trainer: ModuleType, tmp_path: Path) -> None:
    result = trainer.train(tmp_path, **GETS_WORSE)
    assert result.metrics["stopped_early"] is True
    assert result.metrics["steps"] == result.metrics["best"]["step"] + 6 < 60
    assert rows(result.curve)[-1]["step"] == str(result.metrics["steps"])
    again = trainer.train(tmp_path, **GETS_WORSE)
    assert trainer.digest(again) == trainer.digest(result)


def test_clipping_acts(trainer: ModuleType, tmp_path: Path) -> None:
    free = rows(trainer.train(tmp_path / "free", clip_norm=None).curve)
    clipped = rows(trainer.train(tmp_path / "clipped", clip_norm=1e-9).curve)
    assert float(free[0]["grad_norm"]) > 0.01 and float(clipped[0]["grad_norm"]) > 0.01
    assert free != clipped
    # AdamW divides the gradient by its size, but for its epsilon: one this short hardly moves anything.
    moved = [
        abs(float(run[-1]["validation_nll"]) - float(run[1]["validation_nll"])) for run in (free, clipped)
    ]
    assert moved[1] < moved[0] / 5


def test_augmentation_is_a_switch(trainer: ModuleType, tmp_path: Path) -> None:
    on = trainer.train(tmp_path / "on").curve.read_text()
    assert on != trainer.train(tmp_path / "off", augment=False).curve.read_text()


def test_a_finished_run_is_not_trained_again(
    trainer: ModuleType, tmp_path: Path, uninterrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.train(tmp_path)
    monkeypatch.setattr("coma_gen.training.loop._TrainLoop.take_step", None)
    assert trainer.digest(trainer.train(tmp_path)) == uninterrupted


@pytest.mark.parametrize("name", ["train", "validation"])
def test_an_empty_split_is_refused(trainer: ModuleType, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} split: must have at least one token"):
        trainer.train(tmp_path, **{f"{name}_pieces": []})
