"""The train stage in several processes: started by `dvc`, stopped with it, resumed in one process; and
started by torchrun.
"""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path

import pytest
from checkout import DVC, TINY, Built, copy_of, dvc, set_params
from subprocess_utils import attempt, run, started, wait_until

from coma_gen.workspace.fingerprint import training_digest

pytestmark = pytest.mark.slow
STEPS = 100
LONGER = {"steps": STEPS, "validate_every": 50, "checkpoint_every": 5, "log_every": 5}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def checkout(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(built.folder, tmp_path_factory.mktemp("processes") / "checkout")


def rows(folder: Path) -> list[list[float]]:
    with (folder / "metrics" / "curve.csv").open(newline="") as file:
        return [[float(cell or "nan") for cell in row] for row in list(csv.reader(file))[1:]]


def steps(checkout: Path) -> list[int]:
    folder = checkout / ".resume" / training_digest(checkout) / "checkpoints"
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def test_the_resume_folder_is_one_for_any_number_of_processes(checkout: Path) -> None:
    keys = {}
    for section, name, value in (("runtime", "processes", 4), ("runtime", "threads", 3)):
        before = training_digest(checkout)
        set_params(checkout, {section: {name: value}})
        keys[name] = (before, training_digest(checkout))
        set_params(checkout, {section: {name: 1}})
    assert keys["processes"][0] == keys["processes"][1]
    assert keys["threads"][0] != keys["threads"][1]


def test_dvc_starts_and_stops_two_and_one_goes_on(checkout: Path) -> None:
    set_params(checkout, {"runtime": {"processes": 2}, "train": LONGER})
    with started(checkout, *DVC, "repro", "train") as job:
        wait_until(lambda: bool(steps(checkout)) or job.process.poll() is not None, told=lambda: job.output)
        assert len(job.members(str(checkout / "stages" / "train.py"))) == 2, job.output
        job.signal_group(signal.SIGTERM)
        assert job.wait() != 0
        wait_until(lambda: not job.members(str(checkout / "stages" / "train.py")), told=lambda: job.output)
        output = job.output
    stopped = steps(checkout)[-1]
    assert 0 < stopped < STEPS
    assert output.count("Interrupted.") == 1 and f"after step {stopped};" in output
    assert "Traceback" not in output and "Warning" not in output
    set_params(checkout, {"runtime": {"processes": 1}})
    dvc(checkout, "repro", "train")
    assert [int(row[0]) for row in rows(checkout)] == list(range(5, STEPS + 1, 5))
    speeds = next((checkout / ".resume").glob("*/speed.csv")).read_text().split()[1:]
    assert len(speeds) == STEPS // 5, "no step was taken twice"


def test_torchrun_gives_what_dvc_gives_and_dvc_takes_it_over(built: Built, checkout: Path) -> None:
    set_params(checkout, {"train": TINY["train"]})
    status, output = attempt(checkout, *TORCHRUN, "stages/train.py")
    assert status == 0 and "Traceback" not in output, output
    run(checkout, *DVC, "commit", "--force", "train")
    assert "train" not in dvc(checkout, "status", "train")
    ours, theirs = rows(checkout), rows(built.folder)
    assert len(ours) == len(theirs) == 4
    for got, wanted in zip(ours, theirs, strict=True):
        assert got == pytest.approx(wanted, rel=1e-3, nan_ok=True)
    metrics = [json.loads((each / "metrics" / "train.json").read_text()) for each in (checkout, built.folder)]
    assert metrics[0]["best"]["step"] == metrics[1]["best"]["step"]
