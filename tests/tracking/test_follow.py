"""A follower process during training that writes, resumes, ends normally, or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from subprocess_utils import wait_until

from coma_gen.core.errors import UserError
from coma_gen.tracking import follow
from coma_gen.tracking.csv_tail import Row
from coma_gen.tracking.follow import Follower, Parent
from coma_gen.tracking.launch import start_follower
from coma_gen.tracking.store import Store, open_store
from tracking.conftest import HEADER, curve_text

TRAIN = """
import sys, time
from pathlib import Path
from coma_gen.tracking.launch import start_follower
folder, params = Path(sys.argv[1]), Path(sys.argv[2])
follower = start_follower(
    curve=folder / "curve.csv", speed=folder / "speed.csv", home=folder, key="a-1", name="a", params=params,
    log=folder / "follower.log",
)
assert "mlflow" not in sys.modules
print(follower.pid, flush=True)
for word in sys.stdin:
    if word.strip() == "finish":
        follower.finish()
"""
PARAMS = Path(__file__).parents[2] / "params.yaml"
Points = Callable[[], list[tuple[str, int, float]]]


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked after does not."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return state.strip() != "" and not state.startswith("Z")


@dataclass
class Training:
    """A process that stands for training, and its follower."""

    process: subprocess.Popen[str]
    follower: int

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()


@pytest.fixture
def start_training(home: Path, own_code: dict[str, str]) -> Iterator[Callable[..., Training]]:
    started: list[Training] = []

    def start(**environment: str) -> Training:
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(home), str(PARAMS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**own_code, **environment},
        )
        assert process.stdout is not None
        started.append(Training(process, int(process.stdout.readline())))
        return started[-1]

    yield start
    for training in started:
        if training.process.poll() is None:
            training.process.kill()
        training.process.communicate()
        if is_there(training.follower):
            os.kill(training.follower, signal.SIGKILL)


@pytest.mark.slow
def test_it_sends_a_training_that_is_killed_and_one_that_resumes(
    home: Path,
    store: Store,
    start_training: Callable[..., Training],
    write_curve: Callable[[Path, range], Path],
    points: Points,
) -> None:
    def losses() -> list[int]:
        return [step for name, step, _ in points() if name == "loss/train"]

    training = start_training()
    curve = write_curve(home / "curve.csv", range(10, 51, 10))
    wait_until(lambda: len(losses()) == 5)
    run = store.client.search_runs([store.experiment_id])[0]
    assert (run.info.status, run.info.run_name) == ("RUNNING", "a")
    assert run.data.params["train.learning_rate"]
    with curve.open("a") as file:
        file.write("60,122880,4.9,0.003,1.2,\n70,1433")
    (home / "speed.csv").write_text("step,tokens_per_second\n60,9000\n")
    training.process.kill()
    wait_until(lambda: not is_there(training.follower))
    assert losses() == [10, 20, 30, 40, 50, 60]
    assert ("system/tokens_per_second", 60, 9000.0) in points()
    assert store.client.get_run(run.info.run_id).info.status == "KILLED"

    write_curve(curve, range(10, 31, 10))
    resumed = start_training()
    wait_until(lambda: store.client.get_run(run.info.run_id).info.status == "RUNNING")
    with curve.open("a") as file:
        file.write(curve_text(range(40, 51, 10)).removeprefix(HEADER))
        file.write("60,122880,4.9,0.003,1.2,\n70,143360,4.8,0.003,1.2,\n")
    resumed.say("finish")
    wait_until(lambda: not is_there(resumed.follower))
    assert losses() == [10, 20, 30, 40, 50, 60, 70]
    assert store.client.get_run(run.info.run_id).info.status == "FINISHED"
    assert (home / "follower.log").read_text() == ""


@pytest.mark.slow
def test_sigterm_to_all_is_not_a_good_end(
    home: Path,
    store: Store,
    start_training: Callable[..., Training],
    write_curve: Callable[[Path, range], Path],
    points: Points,
) -> None:
    """As a scheduler stops a job: whoever ends by it did not end well, and what was written still arrives."""
    training = start_training()
    curve = write_curve(home / "curve.csv", range(10, 31, 10))
    wait_until(lambda: len(points()) > 0)
    os.kill(training.follower, signal.SIGTERM)
    with curve.open("a") as file:
        file.write(curve_text(range(40, 51, 10)).removeprefix(HEADER))
    training.process.terminate()
    wait_until(lambda: not is_there(training.follower))
    assert max(step for _, step, _ in points()) == 50
    assert store.client.search_runs([store.experiment_id])[0].info.status == "KILLED"


@pytest.mark.slow
def test_without_a_server_it_ends_quietly_and_soon(
    home: Path, start_training: Callable[..., Training]
) -> None:
    training = start_training(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    wait_until(lambda: "must answer" in (home / "follower.log").read_text())
    training.process.kill()
    wait_until(lambda: not is_there(training.follower))
    assert "Traceback" not in (home / "follower.log").read_text()


def test_a_follower_that_cannot_be_started_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    follower = start_follower(
        curve=tmp_path / "c", speed=tmp_path / "s", home=tmp_path, key="a", name="a", params=PARAMS
    )
    follower.finish()
    assert follower.pid is None
    assert "track" in capsys.readouterr().err


def test_a_follower_that_has_ended_is_told_in_vain(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    follower = start_follower.__globals__["Follower"](ended.pid)
    follower.finish()
    assert follower.pid is None


class Failing(Follower):
    """A follower whose first passes fail."""

    failures = 2
    passes = 0

    def send(self) -> None:
        self.passes += 1
        if self.passes <= self.failures:
            raise UserError
        super().send()


def test_failed_passes_are_made_again(
    home: Path,
    store: Store,
    points: Points,
    write_curve: Callable[[Path, range], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "PASS_SECONDS", 0.01)
    curve = write_curve(home / "curve.csv", range(10, 31, 10))
    follower = Failing(curve, home / "speed.csv", home, "a-1", "a", PARAMS)
    ended_well: list[int] = []
    send = follower.send

    def send_and_end() -> None:
        send()
        ended_well.append(follow.ENDED_WELL)

    monkeypatch.setattr(follower, "send", send_and_end)
    follow.follow(follower, Parent(os.getppid()), ended_well)
    follower.close()
    assert follower.passes > Failing.failures
    assert len([name for name, _, _ in points() if name == "loss/train"]) == 3


def test_files_that_have_not_changed_are_not_read_again(
    home: Path, store: Store, write_curve: Callable[[Path, range], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read = follow.read_rows

    def counted(path: Path) -> list[Row]:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(follow, "read_rows", counted)
    follower = Follower(
        write_curve(home / "curve.csv", range(10, 31, 10)), home / "speed.csv", home, "a-1", "a", PARAMS
    )
    for _ in range(3):
        follower.send()
    assert len(reads) == 2
    write_curve(home / "curve.csv", range(10, 51, 10))
    follower.send()
    assert len(reads) == 4
    follower.close()


def test_how_busy_the_machine_is_goes_with_the_curve(
    home: Path, store: Store, write_curve: Callable[[Path, range], Path]
) -> None:
    follower = Follower(
        write_curve(home / "curve.csv", range(10, 31, 10)), home / "speed.csv", home, "a-1", "a", PARAMS
    )
    follower.send()
    write_curve(home / "curve.csv", range(10, 51, 10))
    follower.send()
    follower.close()
    [run] = store.client.search_runs([store.experiment_id])
    for name in ("cpu_utilization_percentage", "system_memory_usage_percentage"):
        found = store.client.get_metric_history(run.info.run_id, f"system/{name}")
        assert [metric.step for metric in found] == [30, 50]
        assert all(0 <= metric.value <= 100 for metric in found)
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 0


def test_two_followers_do_not_write_to_one_run(
    home: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 0.2)
    arguments: Any = (home / "curve.csv", home / "speed.csv", home, "a-1", "a", PARAMS)
    first, second = Follower(*arguments), Follower(*arguments)
    first.send()
    with pytest.raises(UserError, match="another process"):
        second.send()
    first.close()
    second.send()
    second.close()
    assert len(open_store(home).client.search_runs([store.experiment_id])) == 1


def test_a_parent_that_is_gone_is_noticed() -> None:
    assert Parent(os.getppid()).is_alive()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not Parent(ended.pid).is_alive()
