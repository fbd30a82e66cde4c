"""The stage `track` on a workspace with all stages complete."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from coma_gen.config.load import load_params
from coma_gen.core.artifact import write_manifest
from coma_gen.core.errors import UserError
from coma_gen.tracking.launch import follow_training
from coma_gen.tracking.stage import STAGES, track_workspace
from coma_gen.tracking.store import Store
from coma_gen.workspace.fingerprint import training_digest
from coma_gen.workspace.paths import Workspace

ROOT = Path(__file__).parents[2]
COUNTS = {"performances": 1, "hours": 0.1, "notes": 2367}
METRICS = {
    "split": dict.fromkeys(("train", "validation", "test"), COUNTS),
    "evaluate": {"test": {"bits_per_note_10ms": 21.5}},
    "headline": {"bits": 21.5},
    "train": {"best": {"validation_nll": 3.5}},
}
DVC_YAML = """
stages: {train: {cmd: x, deps: [data/shards, stages/train.py], params: [train, model, runtime]}}
"""


@pytest.fixture
def workspace(
    home: Path, monkeypatch: pytest.MonkeyPatch, write_curve: Callable[[Path, range], Path]
) -> Workspace:
    """A checkout with all that `track` reads."""
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(ROOT / "params.yaml", home)
    (home / "dvc.yaml").write_text(DVC_YAML)
    (home / "dvc.lock").write_text("schema: '2.0'\nstages: {train: {cmd: x}, track: {cmd: y}}\n")
    (home / "stages").mkdir()
    (home / "stages" / "train.py").write_text("")
    for kind in ("corpus", "split", "tokenizer", "shards", "model", "samples", "report", "evaluation"):
        (home / "data" / kind).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            (home / "data" / kind / f"{split}.csv").write_text(f"{kind} {split}")
        write_manifest(home / "data" / kind, kind=kind, made_from={}, settings={})
    (home / "metrics").mkdir()
    for stage in STAGES:
        (home / "metrics" / f"{stage}.json").write_text(json.dumps(METRICS.get(stage, {"count": 1})))
    write_curve(home / "metrics" / "curve.csv", range(10, 51, 10))
    return Workspace.here(home)


def tracked(workspace: Workspace) -> str:
    track_workspace(load_params(workspace.params), workspace)
    return workspace.data("tracked.json").read_text()


def test_track_makes_one_complete_run_and_lets_the_checkpoints_go(
    workspace: Workspace, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = workspace.resume / training_digest(workspace.root)
    resume.mkdir(parents=True)
    (resume / "speed.csv").write_text("step,tokens_per_second\n10,9000\n")
    content = tracked(workspace)
    assert not resume.exists()
    assert tracked(workspace) == content
    [run] = store.client.search_runs([store.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "workspace")
    assert run.data.metrics["bits"] == 21.5
    assert run.data.metrics["system/tokens_per_second"] == 9000
    assert run.data.params["train.learning_rate"] == str(load_params(workspace.params).train.learning_rate)
    digests = {
        f"digest.{name}"
        for name in ("artifacts", "corpus", "experiment", "key", "lock", "model", "place", "tokenizer")
    }
    assert {tag for tag in run.data.tags if tag.startswith("digest.")} == digests
    assert run.data.tags["corpus"] == "maestro-mini"
    assert run.info.run_id not in content
    version = store.client.get_model_version_by_alias("coma-gen", "champion")
    assert version.tags["test.bits_per_note_10ms"] == "21.5"
    monkeypatch.setenv("DVC_EXP_NAME", "slow-tempo")
    assert tracked(workspace) == content
    names = {run.info.run_name for run in store.client.search_runs([store.experiment_id])}
    assert names == {"workspace", "slow-tempo"}


def test_the_commit_is_told_where_there_is_one(workspace: Workspace, store: Store) -> None:
    git = ["git", "-C", str(workspace.root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    tracked(workspace)
    [run] = store.client.search_runs([store.experiment_id])
    assert len(run.data.tags["git.commit"]) == 40


def test_a_trainer_at_work_keeps_its_folder(workspace: Workspace) -> None:
    from filelock import FileLock

    resume = workspace.resume / training_digest(workspace.root)
    resume.mkdir(parents=True)
    with FileLock(resume / "trainer.lock"):
        tracked(workspace)
    assert resume.exists()


def test_a_missing_result_is_named(workspace: Workspace) -> None:
    workspace.metrics("sample.json").unlink()
    with pytest.raises(UserError, match=r"sample\.json"):
        tracked(workspace)


def test_training_goes_on_where_it_cannot_be_followed(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace.root / "dvc.yaml").unlink()
    assert follow_training(workspace, workspace.resume / "x").pid is None
    assert "No live MLflow logging" in capsys.readouterr().err
