"""The whole pipeline in temporary checkouts, by real `dvc`: every stage runs, is recorded once, is
reproducible bit for bit, and does not rerun without need.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from checkout import (
    DVC,
    Built,
    clone,
    coma_gen,
    copy_of,
    dvc,
    edited,
    git_status,
    locked_outs,
    set_params,
    stages_run,
)
from mlflow_records import OF_MLFLOW, STAGES, metrics_of, model_versions, recorded_runs
from subprocess_utils import run

from coma_gen.config.yaml_reader import read_yaml
from coma_gen.workspace.verify import compare

pytestmark = [pytest.mark.slow, *map(pytest.mark.filterwarnings, OF_MLFLOW)]
ALL = (
    "check",
    "download",
    "split",
    "fit_tokenizer",
    "shard",
    "baseline",
    "train",
    "evaluate",
    "sample",
    "headline",
    "report",
    "track",
)
DRAWN = ("context", "curve", "models", "types", "validation")
"""Tables in metrics/ that DVC's plots draw."""


@pytest.fixture(scope="module")
def another(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished checkout to be changed; each test puts back what it changes."""
    return copy_of(built.folder, tmp_path_factory.mktemp("another") / "checkout")


class TestOneRun:
    def test_every_stage_runs_once_without_a_warning(self, built: Built) -> None:
        assert stages_run(built.output) == list(ALL)
        assert "Warning" not in built.output and "Traceback" not in built.output

    def test_everything_is_there(self, built: Built) -> None:
        outs = locked_outs(built.folder)
        assert {name for name in outs if name.startswith("metrics/")} == {
            *(f"metrics/{name}.csv" for name in DRAWN),
            *(f"metrics/{stage}.json" for stage in STAGES),
        }
        assert all((built.folder / name).exists() for name in outs)
        page = (built.folder / "data" / "report" / "index.html").read_text()
        assert "synthetic" in page and len(list((built.folder / "data" / "samples").glob("*.mid"))) == 2
        assert metrics_of(built.folder)["split"]["train"]["performances"] >= 32

    def test_git_sees_the_lock_and_the_metrics_only(self, built: Built) -> None:
        made = ["dvc.lock", *(f"metrics/{stage}.json" for stage in STAGES)]
        made += [f"metrics/{name}.csv" for name in DRAWN]
        assert sorted(built.changed) == sorted(f"?? {name}" for name in made)
        assert git_status(built.folder) == []

    def test_it_is_one_complete_run_in_mlflow(self, built: Built) -> None:
        (recorded,) = recorded_runs(built.folder)
        assert recorded.name == "workspace"
        assert recorded.lacks(read_yaml(built.folder / "params.yaml"), metrics_of(built.folder)) == []
        assert model_versions(built.folder) == [recorded.tags["digest.model"]]
        assert not list((built.folder / ".resume").glob("*"))

    def test_a_second_time_nothing_runs(self, built: Built) -> None:
        output = dvc(built.folder, "repro")
        assert "up to date" in output and stages_run(output) == []
        assert run(built.folder, *DVC, "status", "--json").strip() == "{}"
        assert len(recorded_runs(built.folder)) == 1
        assert git_status(built.folder) == []


class TestVerify:
    def test_the_committed_build_is_identical(self, built: Built) -> None:
        status, output = coma_gen(built.folder, "verify")
        assert status == 0
        assert output.count("identical") == len(ALL) - 1

    def test_another_split_is_a_difference(self, another: Path) -> None:
        digest = locked_outs(another)["data/split"]
        with edited(another / "dvc.lock", digest, "0" * 32 + ".dir"):
            rows = {row.stage: row for row in compare(another, "another vendor")}
            assert coma_gen(another, "verify")[0] == 1
        assert [name for name, row in rows.items() if not row.good] == ["split"]
        assert "data/split" in rows["split"].verdict

    def test_another_model_is_held_against_the_committed_figures(self, another: Path) -> None:
        digest = locked_outs(another)["data/model"]
        nll = metrics_of(another)["train"]["best"]["validation_nll"]
        with edited(another / "dvc.lock", digest, "0" * 32 + ".dir"):
            (row,) = (row for row in compare(another, "another vendor") if row.stage == "train")
            assert row.good and "within tolerance (0.00%" in row.verdict
            with edited(another / "metrics" / "train.json", str(nll), str(nll * 1.2)):
                (row,) = (row for row in compare(another, "another vendor") if row.stage == "train")
        assert not row.good and row.verdict.startswith("DIFFERS")


def _one_cpu() -> str:
    return str(min(os.sched_getaffinity(0)))


class TestAgain:
    def test_without_data_and_cache_it_gives_the_same_lock_elsewhere_on_one_cpu(
        self, built: Built, tmp_path: Path
    ) -> None:
        checkout = clone(built.folder, tmp_path / "a longer path, and another")
        shutil.rmtree(checkout / "metrics")
        one_cpu = (
            "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.argv[2], sys.argv[2:])"
        )
        output = run(checkout, sys.executable, "-c", one_cpu, _one_cpu(), *DVC, "repro")
        assert stages_run(output) == list(ALL)
        assert (checkout / "dvc.lock").read_bytes() == (built.folder / "dvc.lock").read_bytes()
        assert git_status(checkout) == []

    def test_another_seed_gives_another_lock(self, built: Built, tmp_path: Path) -> None:
        checkout = clone(built.folder, tmp_path / "other")
        set_params(checkout, {"download": {"synthetic_seed": 7}})
        dvc(checkout, "repro", "download")
        assert locked_outs(checkout)["data/corpus"] != locked_outs(built.folder)["data/corpus"]
