"""Workflows around the pipeline: other cache types, mistyped values, unusable addresses and folders, a `dvc`
that is killed early, and an archive of the source instead of a clone.
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from checkout import DVC, ROOT, Built, coma_gen, commit, copy_of, dvc, make_checkout, set_params, stages_run
from mlflow_records import OF_MLFLOW, metrics_of, recorded_runs
from subprocess_utils import attempt, environment, run, started, wait_until

from coma_gen.core.io import sha256_file

pytestmark = [pytest.mark.slow, *map(pytest.mark.filterwarnings, OF_MLFLOW)]
LINKS = {
    "hardlink": lambda path: path.stat().st_nlink > 1,
    "symlink": lambda path: path.is_symlink(),
}
"""Kind of cache -> whether a file is a link to it; a cache of copies is what every other test has."""


@pytest.fixture(scope="module")
def another(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished checkout to be changed; each test puts back what it changes."""
    checkout = copy_of(built.folder, tmp_path_factory.mktemp("another") / "checkout")
    for key, text in (("user.name", "t"), ("user.email", "t@example.org")):
        run(checkout, "git", "config", key, text)
    return checkout


@pytest.fixture
def results(another: Path) -> Iterator[dict[str, str]]:
    """The digests of all results; they are still there when a test ends, and so are the settings."""
    yield digests(another)
    run(another, "git", "checkout", "-q", ".")


def digests(checkout: Path) -> dict[str, str]:
    paths = [path for name in ("data", "metrics") for path in (checkout / name).rglob("*")]
    files = [path for path in paths if path.is_file() and path.name not in ("checked.txt", "tracked.json")]
    return {path.relative_to(checkout).as_posix(): sha256_file(path) for path in files}


class TestCaches:
    @pytest.mark.parametrize("kind", LINKS)
    def test_the_whole_pipeline_under_links(self, kind: str, tmp_path: Path) -> None:
        checkout = make_checkout(tmp_path / "checkout")
        dvc(checkout, "config", "cache.type", kind)
        output = dvc(checkout, "repro")
        assert "Traceback" not in output and stages_run(output)[-1] == "track"
        model = checkout / "data" / "model"
        assert all(LINKS[kind](path) for path in model.rglob("*") if not path.is_dir())
        (recorded,) = recorded_runs(checkout)
        params = yaml.safe_load((checkout / "params.yaml").read_text())
        assert recorded.lacks(params, metrics_of(checkout)) == []
        logged = [path for path in (checkout / "mlartifacts").rglob("*") if not path.is_dir()]
        assert logged and not any(path.is_symlink() for path in logged)
        assert any(path.name.endswith(".safetensors") for path in logged)
        assert stages_run(dvc(checkout, "repro")) == []
        run(checkout, "git", "config", "user.email", "t@example.org")
        status, output = coma_gen(checkout, "doctor")
        assert status == 0, output


class TestMistyped:
    @pytest.mark.parametrize(
        ("key", "value", "reason"),
        [
            ("train.learning_rate", "fast", "params.yaml: train.learning_rate: must be a number"),
            ("train.init_from", "/nowhere", "train.init_from: /nowhere must be a folder of kind 'model'"),
            ("train.teacher", "/nowhere", "train.teacher: /nowhere must be a folder of kind 'model'"),
        ],
    )
    def test_a_value_is_refused_while_all_results_are_there(
        self, key: str, value: str, reason: str, another: Path, results: dict[str, str]
    ) -> None:
        status, output = attempt(another, *DVC, "exp", "run", "-S", f"{key}={value}")
        assert status != 0 and reason in output and "Traceback" not in output
        assert stages_run(output) == ["check"]
        assert digests(another) == results

    def test_so_it_is_in_params_yaml_and_a_good_one_goes_on(
        self, another: Path, results: dict[str, str]
    ) -> None:
        set_params(another, {"sample": {"seconds": "long"}})
        status, output = attempt(another, *DVC, "repro", "--keep-going")
        assert status != 0 and "sample.seconds" in output and stages_run(output) == ["check"]
        assert digests(another) == results
        run(another, "git", "checkout", "-q", "params.yaml")
        assert stages_run(dvc(another, "repro")) in ([], ["track"])
        assert digests(another) == results

    def test_a_folder_of_music_that_is_not_there(self, another: Path, results: dict[str, str]) -> None:
        words = ("-S", "download.corpus=folder", "-S", "download.path=/nowhere")
        status, output = attempt(another, *DVC, "exp", "run", *words)
        assert status != 0 and "/nowhere" in output and "Traceback" not in output
        assert digests(another) == results

    def test_who_runs_one_stage_alone_is_told_the_way_back(
        self, another: Path, results: dict[str, str]
    ) -> None:
        set_params(another, {"train": {"learning_rate": "fast"}})
        status, output = attempt(another, *DVC, "repro", "--single-item", "train")
        assert status != 0 and "train.learning_rate" in output
        assert "run `dvc checkout` and `git restore metrics`" in output
        run(another, "git", "restore", "params.yaml", "metrics")
        dvc(another, "checkout")
        assert digests(another) == results


class TestBeforeTraining:
    def test_an_address_of_no_use_is_refused(self, another: Path, results: dict[str, str]) -> None:
        words = (*DVC, "exp", "run", "-S", "train.seed=5")
        status, output = attempt(another, *words, env={"MLFLOW_TRACKING_URI": "./mlruns"})
        assert status != 0 and "MLFLOW_TRACKING_URI: must be an address" in output
        assert stages_run(output) == ["check"] and digests(another) == results

    def test_by_the_train_stage_too_as_where_only_code_has_changed(self, another: Path) -> None:
        status, output = attempt(
            another, DVC[0], "stages/train.py", env={"MLFLOW_TRACKING_URI": "mysql+none://h/x"}
        )
        assert status != 0 and "MLFLOW_TRACKING_URI: must be" in output
        assert not list((another / ".resume").glob("*"))

    def test_folders_that_take_no_file_are_named(self, another: Path) -> None:
        """Not even of root, without the right to write where the mode says no."""
        folders = [another / "data", another / "metrics"]
        for folder in folders:
            folder.chmod(0o555)
        try:
            done = subprocess.run(
                [DVC[0], "stages/train.py"],
                cwd=another,
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
                preexec_fn=_without_root_s_way,
            )
        finally:
            for folder in folders:
                folder.chmod(0o755)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        for folder in folders:
            assert f"{folder}: must be a folder that can be written to, got Permission denied" in done.stderr
        assert not list((another / ".resume").glob("*"))


def _without_root_s_way() -> None:
    """Gives up what lets root write everywhere (CAP_DAC_OVERRIDE), where this is root."""
    prctl, drop_from_bounds = ctypes.CDLL(None, use_errno=True).prctl, 24
    for capability in (1, 2):
        prctl(drop_from_bounds, capability, 0, 0, 0)


def test_dvc_killed_while_the_trainer_still_starts_takes_it_along(another: Path) -> None:
    """The trainer is stopped as soon as it is there, and goes on when `dvc` is dead."""
    set_params(another, {"train": {"steps": 1_000_000}})  # it could not end by itself meanwhile
    with started(another, *DVC, "repro", "--force", "--single-item", "train") as job:
        wait_until(lambda: bool(job.members("stages/train.py")), told=lambda: job.output, every=0.001)
        (trainer,) = job.members("stages/train.py")
        trainer.suspend()
        job.process.send_signal(signal.SIGKILL)
        job.process.wait()
        trainer.resume()
        wait_until(lambda: not _is_running(trainer), told=lambda: job.output)
    assert not (another / "data" / "model").exists()
    dvc(another, "checkout")
    run(another, "git", "checkout", "-q", ".")


def _is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


class TestAnArchiveOfTheSource:
    @pytest.fixture
    def unpacked(self, tmp_path: Path) -> Path:
        """The files of the demo's target, and an environment that is said to be there."""
        folder = tmp_path / "coma-gen-main"
        (folder / ".venv" / "bin").mkdir(parents=True)
        for name in ("Makefile", "params.yaml", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        (folder / ".venv" / ".installed").touch()
        return folder

    def test_is_told_to_be_one_and_what_makes_it_a_clone(self, unpacked: Path) -> None:
        status, output = attempt(
            unpacked, "make", "demo", env={"GIT_CEILING_DIRECTORIES": str(unpacked.parent)}
        )
        assert status != 0 and "this is no git clone" in output and "params.yaml is not" not in output
        run(unpacked, "git", "init", "-q")
        commit(unpacked, "begin")
        status, output = attempt(unpacked, "make", "demo")
        assert "this is no git clone" not in output
        (unpacked / "params.yaml").write_text("changed: {}\n")
        status, output = attempt(unpacked, "make", "demo")
        assert status != 0 and "params.yaml is not the committed one" in output

    def test_in_the_clone_of_something_else(self, unpacked: Path) -> None:
        run(unpacked.parent, "git", "init", "-q")
        status, output = attempt(unpacked, "make", "demo")
        assert status != 0 and "this is no git clone" in output
