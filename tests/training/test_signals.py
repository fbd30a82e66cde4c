"""Interrupted runs: after a restart the result is bit-identical to an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from coma_gen.training import loop, state
from coma_gen.training.checkpoint import Checkpoint
from coma_gen.training.metrics_log import MetricsLog
from coma_gen.training.signals import GracefulStop, TrainingInterrupted

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("trainer.py")
STEPS = 10


def start(*arguments: object) -> subprocess.Popen[str]:
    source = str(Path(loop.__file__).parents[2])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(PROGRAM), *(str(argument) for argument in arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def wait_for_row(curve: Path, step: int) -> None:
    end = time.monotonic() + 500
    while not (curve.exists() and f"\n{step}," in curve.read_text()):
        assert time.monotonic() < end, "the run does not move"
        time.sleep(0.01)


class Fault(Exception):
    """What the tests throw."""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_signals(trainer: ModuleType, tmp_path: Path, uninterrupted: str, number: signal.Signals) -> None:
    with start(tmp_path, 10) as run:
        wait_for_row(tmp_path / "curve.csv", 3)
        run.send_signal(number)
        output, _ = run.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert run.returncode == -signal.SIGKILL
    else:
        assert run.returncode == 128 + number
        assert output.startswith(f"training was stopped by {number.name} after step ")
        step = int(output.split("after step ")[1].split(";")[0])
        assert 3 <= step < STEPS
        assert (tmp_path / "checkpoints" / f"step-{step:08d}").is_dir()
    assert trainer.digest(trainer.train(tmp_path)) == uninterrupted


def validated_step(run: loop._TrainLoop) -> int:
    return run.train_state.progress.step


def saved_step(resume: Path, point: Checkpoint, key: str) -> int:
    return point.step


EVERY, VALIDATED, LOGGED, SAVED = range(1, STEPS + 1), (4, 8, 10), (3, 4, 6, 8, 9, 10), (2, 4, 6, 8, 10)
CALLS = {
    # what is called, the step from its arguments, whether it fails after it has acted, its steps
    "before a step": (loop._TrainLoop, "take_step", lambda run, step, _: step, False, EVERY),
    "between a step and what follows": (loop._TrainLoop, "take_step", lambda run, step, _: step, True, EVERY),
    "between validation and row": (loop._TrainLoop, "validate", validated_step, True, VALIDATED),
    "between row and checkpoint": (MetricsLog, "append", lambda curve, row: row.step, True, LOGGED),
    "before a checkpoint": (state, "save_checkpoint", saved_step, False, SAVED),
    "after a checkpoint": (state, "save_checkpoint", saved_step, True, SAVED),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_fault_at_every_call_and_step(
    trainer: ModuleType, tmp_path: Path, uninterrupted: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call fails once at each step, in one run that is started again every time."""
    owner, name, step_of, is_late, steps = CALLS[call]
    real, failed = getattr(owner, name), set()

    def faulty(*arguments: Any, **options: Any) -> Any:
        step = step_of(*arguments, **options)
        is_due = step not in failed
        failed.add(step)
        result = real(*arguments, **options) if is_late or not is_due else None
        if is_due:
            raise Fault
        return result

    monkeypatch.setattr(owner, name, faulty)
    for _ in steps:
        with pytest.raises(Fault):
            trainer.train(tmp_path)
    assert failed == set(steps)
    assert trainer.digest(trainer.train(tmp_path)) == uninterrupted


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_asked_to_stop_after_each_step(
    trainer: ModuleType, tmp_path: Path, uninterrupted: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    real = loop._TrainLoop.take_step

    def take_step(self: Any, number: int, batches: Any) -> Any:
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, number, batches)

    with monkeypatch.context() as patch:
        patch.setattr(loop._TrainLoop, "take_step", take_step)
        with pytest.raises(TrainingInterrupted, match=f"stopped by SIGTERM after step {step};") as caught:
            trainer.train(tmp_path)
    assert caught.value.step == step and caught.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "checkpoints" / f"step-{step:08d}").is_dir()
    assert trainer.digest(trainer.train(tmp_path)) == uninterrupted


def test_stopped_at_every_single_step(
    trainer: ModuleType, tmp_path: Path, uninterrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(GracefulStop, "reason", "a test")
        for _ in range(STEPS):
            with pytest.raises(TrainingInterrupted):
                trainer.train(tmp_path)
    assert trainer.digest(trainer.train(tmp_path)) == uninterrupted


def test_the_live_curve_cannot_spoil_a_resumed_one(
    trainer: ModuleType, tmp_path: Path, uninterrupted: str
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingInterrupted):
        patch.setattr(GracefulStop, "reason", "a test")
        trainer.train(tmp_path)
    with (tmp_path / "curve.csv").open("a") as file:
        file.write("2,99,1.0,half a ro")
    assert trainer.digest(trainer.train(tmp_path)) == uninterrupted


def test_a_second_signal_is_not_held_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), GracefulStop() as stop:
            assert stop.reason is None
            signal.raise_signal(signal.SIGINT)
            assert stop.reason == "SIGINT"
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("fails", [False, True])
def test_one_of_several_ranks_hears_the_first_signal_only(fails: bool) -> None:
    """Its launcher, its group and a scheduler may each send one, while it saves and while it ends."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with suppress(Fault), GracefulStop(patient=True) as stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert stop.reason == "SIGTERM"
            if fails:
                raise Fault
        assert signal.getsignal(signal.SIGTERM) == (signal.SIG_IGN if fails else before)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with GracefulStop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.reason is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_no_signal_is_listened_for() -> None:
    reasons: list[str | None] = []

    def work() -> None:
        with GracefulStop() as stop:
            reasons.append(stop.reason)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reasons == [None]
