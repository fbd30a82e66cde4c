"""DVC experiments are found with their settings, and queued once."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from coma_gen.cli.main import main
from coma_gen.core.errors import Fault, UserError
from coma_gen.experiments import dvc_experiments
from coma_gen.experiments.ablation import Ablation, Run
from coma_gen.experiments.ablation_table import RunFigures
from coma_gen.experiments.dvc_experiments import find_experiments, queue_statuses

STATUS = """Task     Name          Created    Status
ee367d7  small-base-3  06:16 PM   Running
32b88ed  small-wide-3  06:16 PM   Queued
41ba3ec  small-base-4  Nov 21, 2026 Failed
7027e53                06:07 PM   Success

Worker status: 1 active, 0 idle
"""


def git(folder: Path, *arguments: str, at: int = 1_000_000_000) -> str:
    """Runs git as somebody, at a time."""
    somebody = {f"GIT_{who}_{what}": "t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = {f"GIT_{who}_DATE": f"{at} +0000" for who in ("AUTHOR", "COMMITTER")}
    environment = {**os.environ, **somebody, **dates}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


FLOW = {
    "download": ("", "corpus", "download"),
    "split": ("corpus", "split", "split"),
    "fit_tokenizer": ("split", "tokenizer", "tokenizer"),
    "shard": ("tokenizer", "shards", "shard"),
    "train": ("shards", "model", "train"),
    "evaluate": ("model", "evaluation", "runtime.threads"),
}
"""Stage -> what it reads, what it writes, which params it has."""


def lock(params: dict[str, Any], changed: tuple[str, ...]) -> dict[str, Any]:
    """dvc.lock of a whole run; of the stages in `changed` it knows an older one."""
    stages = {}
    for stage, (reads, writes, name) in FLOW.items():
        section, _, key = name.partition(".")
        known = params[section][key] if key else dict(params[section])
        stages[stage] = {
            "cmd": f"python stages/{stage}.py",
            "deps": [{"path": f"data/{reads}", "md5": f"{reads} old" if stage in changed else reads}],
            "params": {"params.yaml": {name: "old" if f"{stage} params" in changed else known}},
            "outs": [{"path": f"data/{writes}", "md5": writes}],
        }
    return {"schema": "2.0", "stages": {name: stages[name] for name in stages if f"no {name}" not in changed}}


@pytest.fixture
def repository(checkout: Path) -> Path:
    """The checkout in git, with what tells that DVC is there."""
    (checkout / ".dvc").mkdir()
    (checkout / ".dvc" / "config").write_text("")
    (checkout / "dvc.yaml").write_text("stages: {}\n")
    git(checkout, "init", "-q", "-b", "main")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-q", "-m", "begin")
    return checkout


@pytest.fixture
def ran(repository: Path, result: Callable[..., RunFigures]) -> Callable[..., str]:
    """Leaves a run as `dvc exp run` does: a commit beside the branch, which a reference names."""

    def leave(run: Run, *, at: int = 1_000_000_000, changed: tuple[str, ...] = (), **train: object) -> str:
        began_at = git(repository, "rev-parse", "HEAD")
        params = {**run.params, "train": {**run.params["train"], **train}}
        (repository / "params.yaml").write_text(yaml.safe_dump(params))
        (repository / "metrics").mkdir(exist_ok=True)
        bits = {"bits_per_note_10ms": 10.0}
        evaluate = {"validation": bits, "test": {**bits, "windowed": bits}}
        metrics = {
            "train": {"parameters": 7, "tokens": 8},
            "fit_tokenizer": {
                "fidelity": {
                    "validation": {name: {"rms": 6.0} for name in ("onset_error_ms", "duration_error_ms")}
                }
            },
            "shard": {"train": {"tokens": 30, "notes": 10}},
            "evaluate": evaluate,
        }
        for stage, content in metrics.items():
            (repository / "metrics" / f"{stage}.json").write_text(json.dumps(content))
        table = repository / "data" / "evaluation" / "performances.parquet"
        table.parent.mkdir(parents=True, exist_ok=True)
        result(run.seed).performances.to_parquet(table)
        (repository / "dvc.lock").write_text(yaml.safe_dump(lock(params, changed)))
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", run.name, at=at)
        commit = git(repository, "rev-parse", "HEAD")
        git(repository, "update-ref", f"refs/exps/{began_at[:2]}/{began_at[2:]}/{run.name}", commit)
        git(repository, "reset", "-q", "--hard", began_at)
        return commit

    return leave


def test_an_experiment_is_read_from_git(
    repository: Path, small: Ablation, ran: Callable[..., str], result: Callable[..., RunFigures]
) -> None:
    commit = ran(small.runs[0])
    git(repository, "update-ref", "refs/exps/exec/EXEC_HEAD", commit)
    found = find_experiments(repository, small)
    assert list(found) == ["small-base-3"]
    experiment = found["small-base-3"]
    assert experiment.commit == commit
    assert experiment.began_at == git(repository, "rev-parse", "HEAD")
    assert experiment.metrics("train") == {"parameters": 7, "tokens": 8}
    expected = result(3).performances.reset_index(drop=True)
    pd.testing.assert_frame_equal(experiment.performances().reset_index(drop=True), expected)


def test_other_settings_are_another_experiment(
    repository: Path, small: Ablation, ran: Callable[..., str]
) -> None:
    ran(small.runs[0], steps=21)
    assert find_experiments(repository, small) == {}


@pytest.mark.parametrize("changed", ["evaluate", "train params", "evaluate params", "no evaluate"])
def test_an_experiment_that_ended_early_has_no_figures(
    repository: Path, small: Ablation, ran: Callable[..., str], changed: str
) -> None:
    ran(small.runs[0], changed=(changed,))
    assert find_experiments(repository, small) == {}


def test_sections_that_change_nothing_do_not_matter(
    repository: Path, small: Ablation, ran: Callable[..., str]
) -> None:
    small.runs[0].params["sample"]["seed"] += 1
    ran(small.runs[0])
    small.runs[0].params["sample"]["seed"] -= 1
    assert list(find_experiments(repository, small)) == ["small-base-3"]


def test_of_several_that_of_this_commit_comes_first_then_the_newest(
    repository: Path, small: Ablation, ran: Callable[..., str]
) -> None:
    run = small.runs[1]
    first = ran(run, at=3_000_000_000)
    git(repository, "commit", "-q", "--allow-empty", "-m", "later")
    assert find_experiments(repository, small)[run.name].commit == first
    second = ran(run, at=2_000_000_000)
    assert find_experiments(repository, small)[run.name].commit == second
    git(repository, "commit", "-q", "--allow-empty", "-m", "latest")
    assert find_experiments(repository, small)[run.name].commit == first


def test_a_table_that_the_cache_lacks_is_a_fault(
    repository: Path, small: Ablation, ran: Callable[..., str]
) -> None:
    ran(small.runs[0])
    experiment = find_experiments(repository, small)["small-base-3"]
    elsewhere = dvc_experiments.Experiment(experiment.began_at, experiment.began_at, repository)
    with pytest.raises(UserError, match=r"performances\.parquet: must be in DVC's cache"):
        elsewhere.performances()


def test_the_queue_is_read_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dvc_experiments, "_run_dvc", lambda *_: STATUS)
    found = queue_statuses(tmp_path)
    expected = {"small-base-3": "Running", "small-wide-3": "Queued", "small-base-4": "Failed"}
    assert {name: status for name, status in found.items() if name.startswith("small")} == expected


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What dvc was asked to do besides telling its queue, which is `STATUS`."""
    commands: list[tuple[str, ...]] = []

    def dvc(_root: Path, *arguments: str) -> str:
        if arguments == ("queue", "status"):
            return STATUS
        commands.append(arguments)
        return ""

    monkeypatch.setattr(dvc_experiments, "_run_dvc", dvc)
    return commands


def test_queue_skips_what_is_there_and_what_waits(
    repository: Path,
    small: Ablation,
    ran: Callable[..., str],
    asked: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran(small.runs[3])
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit) as ended:
        main(["ablation", "queue", "small"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for line in (
        "small-base-3: already queued",
        "small-wide-3: already queued",
        "small-base-4: queued",
        "small-wide-4: already done",
        "1 queued, 3 skipped",
    ):
        assert line in said
    (command,) = asked
    assert command[:6] == ("exp", "run", "--queue", "--force", "--name", "small-base-4")
    assert command[6:-1] == tuple(small.runs[2].flags) and command[-1] == "headline"


def test_nothing_is_queued_on_what_an_experiment_left_behind(
    repository: Path,
    asked: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = repository / "params.yaml"
    params.write_text(params.read_text().replace("  dim: 128 ", "  dim: 64 "))
    monkeypatch.chdir(repository)
    with pytest.raises(
        SystemExit, match=r"where presets/ablations/small\.yaml says nothing, got model\.dim\."
    ):
        main(["ablation", "queue", "small"])
    assert asked == []


def test_nothing_is_queued_when_one_cell_is_wrong(
    repository: Path,
    asked: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = repository / "presets" / "ablations" / "small.yaml"
    path.write_text(path.read_text() + "  last: {why: x, model: {head_dim: 31}}\n")
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit, match=r"last: model\.head_dim: must be even"):
        main(["ablation", "queue", "small"])
    assert asked == []


def test_the_table_is_printed_with_what_is_missing(
    repository: Path,
    small: Ablation,
    ran: Callable[..., str],
    asked: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ran(small.runs[0])
    ran(small.runs[1])
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit):
        main(["ablation", "table", "small"])
    said = capsys.readouterr().out
    assert re.search(r"\| wide \(1 of 2 seeds\) \| 7 \| 8 \| 3\.00 .* \| \+0\.00 \|", said)
    assert "- small-base-4: failed" in said and "- small-wide-4: not queued" in said
    assert asked == []
    with pytest.raises(SystemExit):
        main(["ablation", "table", "small", "--json"])
    assert [row["cell"] for row in json.loads(capsys.readouterr().out)] == ["base", "wide"]


def test_a_store_of_runs_that_does_not_answer_costs_the_speeds_only(
    repository: Path,
    asked: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise UserError(Fault("MLflow", "must answer"))

    monkeypatch.setattr("coma_gen.tracking.throughput.best_speeds", refuse)
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit):
        main(["ablation", "table", "small"])
    said = capsys.readouterr()
    assert "no speeds: MLflow: must answer" in said.err and "| wide (not run) |" in said.out
    assert asked == []


def test_what_git_or_dvc_refuse_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"git.*must succeed"):
        dvc_experiments._run_git(tmp_path, "show", "nothing:there")


def test_status_needs_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvc_experiments, "_run_dvc", lambda *_: "No experiment tasks in the queue.\n")
    assert queue_statuses(tmp_path) == {}
