"""Training that is interrupted while `dvc` runs it: whichever process is killed, and how, the next `dvc
repro` resumes from the last checkpoint and ends with the same bits.
"""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from checkout import DVC, TINY, Built, copy_of, dvc, locked_outs, set_params, stages_run
from subprocess_utils import Job, attempt, started, wait_until

pytestmark = pytest.mark.slow
LONGER = {"train": {"steps": 600, "validate_every": 200, "checkpoint_every": 10, "log_every": 10}}
TRAINER = "stages/train.py"
Tally = Callable[[str, str, int], None]
OUTS = ("data/model", "metrics/train.json", "metrics/curve.csv")


def kill_trainer(job: Job) -> None:
    (trainer,) = job.members(TRAINER)
    trainer.kill()


def kill_dvc(job: Job) -> None:
    job.process.kill()


def terminate_dvc(job: Job) -> None:
    job.process.terminate()


def interrupt_group(job: Job) -> None:
    job.signal_group(signal.SIGINT)


def terminate_group(job: Job) -> None:
    job.signal_group(signal.SIGTERM)


WAYS: dict[str, Callable[[Job], None]] = {
    "SIGKILL to the trainer": kill_trainer,
    "SIGINT to the group": interrupt_group,
    "SIGTERM to the group": terminate_group,
    "SIGTERM to dvc alone": terminate_dvc,
    "SIGKILL to dvc alone": kill_dvc,
}


@dataclass
class Stopped:
    """A run that was stopped: dvc's exit status, what was written, the last checkpoint before and after."""

    status: int
    output: str
    before: int
    after: int


@dataclass
class History:
    """A checkout whose training was stopped in every way, one after the other, and then ended.

    Attributes:
        folder: the checkout.
        stopped: way -> what came of it.
        output: what the run that ended wrote.
    """

    folder: Path
    stopped: dict[str, Stopped] = field(default_factory=dict)
    output: str = ""


def resume_folders(checkout: Path) -> set[Path]:
    return {path for path in (checkout / ".resume").glob("*") if (path / "checkpoints").is_dir()}


def last_step(checkout: Path, *, outside: frozenset[Path] = frozenset()) -> int:
    """The step of the newest checkpoint in folders but those `outside`; 0 where there is none."""
    folders = resume_folders(checkout) - outside
    names = [path.name for folder in folders for path in (folder / "checkpoints").glob("step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def stop_training(
    checkout: Path, way: Callable[[Job], None], *, outside: frozenset[Path] = frozenset()
) -> Stopped:
    """Trains by `dvc repro`, stops it after a new checkpoint, and waits until the trainer is gone."""
    before = last_step(checkout, outside=outside)
    with started(checkout, *DVC, "repro", "train") as job:
        wait_until(
            lambda: last_step(checkout, outside=outside) > before or job.process.poll() is not None,
            told=lambda: job.output,
        )
        assert job.process.poll() is None, job.output
        way(job)
        status = job.wait()
        wait_until(lambda: not job.members(TRAINER), told=lambda: f"the trainer lives on:\n{job.output}")
        return Stopped(status, job.output, before, last_step(checkout, outside=outside))


@pytest.fixture(scope="module")
def straight(built: Built, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkout that trained without a stop, and what a second `dvc repro` beside it wrote."""
    checkout = copy_of(built.folder, tmp_path_factory.mktemp("straight") / "checkout")
    set_params(checkout, LONGER)
    with started(checkout, *DVC, "repro", "train") as job:
        wait_until(lambda: last_step(checkout) > 0 or job.process.poll() is not None, told=lambda: job.output)
        status, second = attempt(checkout, *DVC, "repro", "train")
        assert job.wait() == 0, job.output
    assert status != 0
    return checkout, second


@pytest.fixture(scope="module")
def history(built: Built, tmp_path_factory: pytest.TempPathFactory) -> History:
    checkout = copy_of(built.folder, tmp_path_factory.mktemp("stopped") / "checkout")
    set_params(checkout, LONGER)
    history = History(checkout)
    for name, way in WAYS.items():
        history.stopped[name] = stop_training(checkout, way)
    others = frozenset(resume_folders(checkout))
    set_params(checkout, {"train": {"learning_rate": 0.001}})
    history.stopped["other params"] = stop_training(checkout, interrupt_group, outside=others)
    set_params(checkout, {"train": {"learning_rate": TINY["train"]["learning_rate"]}})
    history.output = dvc(checkout, "repro", "train")
    return history


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_run_is_no_result(way: str, history: History) -> None:
    stopped = history.stopped[way]
    assert stopped.status != 0
    assert "Traceback" not in stopped.output
    assert stages_run(stopped.output) in (["train"], ["check", "train"])  # the latter after other settings


@pytest.mark.parametrize("way", [way for way in WAYS if way != "SIGKILL to the trainer"])
def test_who_may_ends_with_a_checkpoint_of_the_last_step(way: str, history: History) -> None:
    stopped = history.stopped[way]
    assert f"after step {stopped.after};" in stopped.output
    assert stopped.output.count("Interrupted.") == 1


@pytest.mark.parametrize("way", WAYS)
def test_the_next_run_went_on_from_its_checkpoint(way: str, history: History) -> None:
    stopped = history.stopped[way]
    assert 0 < stopped.after < LONGER["train"]["steps"]
    assert stopped.after > stopped.before


def test_no_step_was_taken_twice_but_around_a_stop(history: History) -> None:
    ended = max(resume_folders(history.folder), key=lambda folder: (folder / "speed.csv").stat().st_size)
    rows = (ended / "speed.csv").read_text().splitlines()[1:]
    times = Counter(int(row.split(",")[0]) for row in rows)
    assert len(times) >= LONGER["train"]["steps"] // LONGER["train"]["log_every"]
    assert sum(times.values()) - len(times) <= len(WAYS)


def test_it_ends_with_the_same_bits_as_without_a_stop(
    history: History, straight: tuple[Path, str], tally: Tally
) -> None:
    assert stages_run(history.output) == ["train"]
    ours, theirs = locked_outs(history.folder), locked_outs(straight[0])
    assert {name: ours[name] for name in OUTS} == {name: theirs[name] for name in OUTS}
    for way in WAYS:
        tally(f"{way} while dvc trains", "no result; the next repro goes on to the same bits", 1)


def test_other_params_began_anew(history: History) -> None:
    other = history.stopped["other params"]
    assert other.before == 0 and 0 < other.after < LONGER["train"]["steps"]
    assert len(resume_folders(history.folder)) == 2


def test_a_second_repro_is_told_who_is_at_work(straight: tuple[Path, str], tally: Tally) -> None:
    _, second = straight
    assert "is busy, it is being blocked by" in second and "Traceback" not in second
    assert stages_run(second) == []
    tally("two repros at once", "the second one runs nothing and names the first", 1)


def test_a_result_that_dvc_did_not_lock_is_not_trained_again(
    history: History, straight: tuple[Path, str], tmp_path: Path, tally: Tally
) -> None:
    """As when dvc is killed after the script has ended and before its lock is written."""
    checkout = copy_of(history.folder, tmp_path / "checkout")
    shutil.copytree(history.folder / ".resume", checkout / ".resume")
    shutil.copy(history.folder / "dvc.lock", tmp_path / "dvc.lock")
    shutil.rmtree(checkout / ".dvc" / "cache" / "runs")
    shutil.rmtree(checkout / "data" / "model")
    steps = {path.name for folder in resume_folders(checkout) for path in (folder / "checkpoints").iterdir()}
    assert stages_run(dvc(checkout, "repro", "--force", "--single-item", "train")) == ["train"]
    again = {path.name for folder in resume_folders(checkout) for path in (folder / "checkpoints").iterdir()}
    assert again == steps
    assert (checkout / "dvc.lock").read_bytes() == (tmp_path / "dvc.lock").read_bytes()
    tally("dvc killed between the end of train and its lock", "not trained again; the same lock", 1)
