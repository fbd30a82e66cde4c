"""Checkpoints: complete or absent, verified before use, rejected if changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coma_gen.training.checkpoint import (
    CHECKPOINTS,
    MAX_CHECKPOINTS,
    Checkpoint,
    latest_checkpoint,
    save_checkpoint,
)

KEY = "k" * 64


def make(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        weights={"a.weight": torch.arange(6.0).view(2, 3).t() + step, "b": torch.tensor(0.1 * step)},
        best={"a.weight": torch.zeros(3, 2)},
        optimizer={"a.weight/exp_avg": torch.full((3, 2), 1 / 3), "a.weight/step": torch.tensor(float(step))},
        progress={"step": step, "loss_sum": 0.1 + 0.2, "best_nll": None},
        curve="step,tokens\n1,2\n",
    )


def steps(resume: Path) -> list[str]:
    return sorted(path.name for path in (resume / CHECKPOINTS).iterdir())


def same(one: Checkpoint, two: Checkpoint) -> bool:
    maps = [(one.weights, two.weights), (one.best, two.best), (one.optimizer, two.optimizer)]
    tensors = all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in maps)
    return tensors and (one.step, one.progress, one.curve) == (two.step, two.progress, two.curve)


def test_comes_back_to_the_bit(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path, key=KEY) is None
    save_checkpoint(tmp_path, make(7), key=KEY)
    back = latest_checkpoint(tmp_path, key=KEY)
    assert back is not None and same(back, make(7))


def test_an_empty_part_comes_back_empty(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint(1, {"a": torch.ones(1)}, {}, {}, {"step": 1}, ""), key=KEY)
    back = latest_checkpoint(tmp_path, key=KEY)
    assert back is not None and back.best == {} and back.optimizer == {}


def test_shared_memory_is_stored_twice(tmp_path: Path) -> None:
    tied = torch.ones(2, 2)
    save_checkpoint(tmp_path, Checkpoint(1, {"a": tied, "b": tied}, {}, {}, {"step": 1}, ""), key=KEY)
    back = latest_checkpoint(tmp_path, key=KEY)
    assert back is not None and torch.equal(back.weights["b"], tied)


def test_the_last_three_stay_and_the_newest_is_taken(tmp_path: Path) -> None:
    for step in (9, 10, 99, 100, 1000):
        save_checkpoint(tmp_path, make(step), key=KEY)
    assert steps(tmp_path) == ["step-00000099", "step-00000100", "step-00001000"]
    assert len(steps(tmp_path)) == MAX_CHECKPOINTS
    back = latest_checkpoint(tmp_path, key=KEY)
    assert back is not None and back.step == 1000


def test_no_pickle_is_written(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, make(1), key=KEY)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json", ".csv"}


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_failing_write_leaves_the_former_ones(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, make(1), key=KEY)
    for failures in range(20):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails_at(failures + 1, getattr(os, name)))
            try:
                save_checkpoint(tmp_path, make(2), key=KEY)
                break
            except OSError:
                pass
        back = latest_checkpoint(tmp_path, key=KEY)
        # The last fsync is of the folder that the finished checkpoint was already moved into.
        assert back is not None and (same(back, make(1)) or (name == "fsync" and same(back, make(2))))
        assert not list((tmp_path / CHECKPOINTS).glob(".*"))
    assert failures >= (4 if name == "fsync" else 3)


def fails_at(number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, but for its `number`-th call, which finds the disk full."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    return call


def test_leftovers_of_a_killed_trainer_are_removed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1), key=KEY)
    leftover = tmp_path / CHECKPOINTS / ".step-00000002.abc.partial"
    leftover.mkdir()
    (leftover / "weights.safetensors").write_text("half")
    (tmp_path / ".curve.csv.abc.partial").write_text("half")
    back = latest_checkpoint(tmp_path, key=KEY)
    assert back is not None and back.step == 1
    assert not leftover.exists() and not (tmp_path / ".curve.csv.abc.partial").exists()
