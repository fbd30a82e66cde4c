"""`coma-gen experiments`: finished runs are ranked against the baseline; unfinished ones are reported."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from coma_gen.cli.main import main
from coma_gen.core.errors import UserError
from coma_gen.experiments.dvc_experiments import STAGES
from coma_gen.experiments.overview import overview
from coma_gen.experiments.queue import Queue

ROOT = Path(__file__).resolve().parents[2]
SCORED = ("train", "baseline", "evaluate", "sample")
Leave = Callable[..., None]


def git(folder: Path, *arguments: str) -> str:
    """Runs git as somebody."""
    somebody = {f"GIT_{who}_{what}": "t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ | somebody, capture_output=True, check=True)
    return done.stdout.decode().strip()


def metrics_of(bits: float) -> dict[str, Any]:
    test = {"bits_per_note_10ms": bits, "nll_per_token": bits / 8}
    test |= {"bits_per_note_10ms_low": bits - 1, "bits_per_note_10ms_high": bits + 1}
    return {
        "train": {"tokens": 5000, "parameters": 1_000_000},
        "baseline": {"test": {"bigram": {"bits_per_note_10ms": 30.0}}},
        "evaluate": {"test": test, "validation": {"bits_per_note_10ms": bits + 2}},
        "sample": {"illegal_probability": bits / 1000},
    }


def performances(bits: float, titles: tuple[str, ...]) -> pd.DataFrame:
    """A note each; the first costs a bit less than `bits`, the others share it."""
    more = np.array([-1.0, *[1 / (len(titles) - 1)] * (len(titles) - 1)])
    return pd.DataFrame(
        {
            "split": "test",
            "midi_filename": titles,
            "composer": "C",
            "title": titles,
            "notes": 1,
            "nats": (bits - 2 + more * (bits - 20)) * np.log(2),
            "resolution_bits": 2.0,
        }
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout that DVC knows, in which nothing has run."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "begin")
    return tmp_path


@pytest.fixture
def leave(repository: Path) -> Leave:
    """Leaves results: as an experiment of a name, as the committed ones (HEAD), or in the workspace."""

    def write(
        name: str,
        bits: float,
        *,
        without: tuple[str, ...] = (),
        titles: tuple[str, ...] = ("a", "b", "c"),
        cached: bool = True,
        damaged: bool = False,
        **changes: dict[str, Any],
    ) -> None:
        began_at = git(repository, "rev-parse", "HEAD")
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        for section, keys in changes.items():
            params[section].update(keys)
        (repository / "params.yaml").write_text(yaml.safe_dump(params))
        (repository / "metrics").mkdir(exist_ok=True)
        stages: dict[str, Any] = {}
        for stage in (*STAGES[:5], "baseline", "evaluate", "sample"):
            outs = []
            if stage in SCORED:
                text = json.dumps(metrics_of(bits)[stage])
                (repository / "metrics" / f"{stage}.json").write_text(text + " " * damaged)
                digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
                outs = [{"path": f"metrics/{stage}.json", "md5": digest}]
            if stage not in without:
                stages[stage] = {"cmd": "x", "deps": [], "outs": outs, "params": {"params.yaml": {}}}
        (repository / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
        table = repository / "data" / "evaluation" / "performances.parquet"
        table.parent.mkdir(parents=True, exist_ok=True)
        performances(bits, titles).to_parquet(table)
        if not cached:
            table.unlink()
        if name == "workspace":
            return
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", name)
        if name != "HEAD":
            commit = git(repository, "rev-parse", "HEAD")
            git(repository, "update-ref", f"refs/exps/{began_at[:2]}/{began_at[2:]}/{name}", commit)
            git(repository, "reset", "-q", "--hard", began_at)

    return write


def test_the_best_comes_first_with_what_differs_and_how_sure_it_is(repository: Path, leave: Leave) -> None:
    leave("HEAD", 20.0)
    leave("worse", 23.0, train={"learning_rate": 0.5})
    leave("better", 18.0, model={"num_layers": 3}, train={"steps": 7})
    found = overview(repository)
    assert [row.name for row in found.rows] == ["better", "HEAD", "worse"]
    assert [row.is_here for row in found.rows] == [False, True, False]
    better, committed, worse = found.rows
    assert better.changes == {"model.num_layers": 3, "train.steps": 7}
    assert worse.changes == {"train.learning_rate": 0.5} and committed.changes == {}
    assert worse.figures["bits"] == 23.0 and worse.figures["illegal"] == 0.023
    assert committed.difference is None and committed.note == "" and found.left_out == {}
    assert worse.difference is not None and worse.difference.mean == pytest.approx(3.0)
    # of three works that cost 0, 4.5 and 4.5 bits more, the same one is drawn for both
    assert worse.difference.low == pytest.approx(0.0) and worse.difference.high == pytest.approx(4.5)


def test_any_run_may_be_the_baseline_and_few_be_shown(repository: Path, leave: Leave) -> None:
    leave("HEAD", 20.0)
    leave("a", 19.0)
    leave("b", 21.0)
    found = overview(repository, ["a"], baseline="b")
    assert found.baseline == "b" and [row.name for row in found.rows] == ["a", "b"]
    assert found.rows[0].difference is not None
    assert found.rows[0].difference.mean == pytest.approx(-2.0)


def test_what_lies_in_the_checkout_is_a_row_where_it_is_no_other(repository: Path, leave: Leave) -> None:
    leave("a", 19.0)
    leave("workspace", 19.5, train={"steps": 8})
    found = overview(repository)
    assert found.baseline == "workspace"  # nothing is committed
    assert [(row.name, row.is_here) for row in found.rows] == [("a", False), ("workspace", True)]
    leave("workspace", 19.0)
    assert [(row.name, row.is_here) for row in overview(repository).rows] == [("a", True)]


def test_a_run_that_ended_early_has_no_row_and_is_said(repository: Path, leave: Leave) -> None:
    leave("HEAD", 20.0)
    leave("early", 20.0, without=("evaluate",), train={"steps": 9})
    found = overview(repository)
    assert [row.name for row in found.rows] == ["HEAD"]
    assert "early: must have run up to the evaluate stage" in found.left_out["early"]
    with pytest.raises(UserError, match="experiment 'early': must have been scored"):
        overview(repository, ["early"])


def test_figures_of_stages_that_did_not_run_are_left_out(repository: Path, leave: Leave) -> None:
    leave("HEAD", 20.0)
    leave("unsampled", 19.0, without=("sample", "baseline"))
    (row, _) = overview(repository).rows
    assert row.name == "unsampled" and {"illegal", "ngram"}.isdisjoint(row.figures)


@pytest.mark.parametrize(
    ("otherwise", "note"),
    [
        ({"titles": ("a", "b")}, "other test music"),
        ({"cached": False}, "other not in the cache"),
        ({"tokenizer": {"pedal": "ignore"}}, "other music: pedal"),
    ],
)
def test_what_cannot_be_held_against_it_says_why(
    otherwise: dict[str, Any], note: str, repository: Path, leave: Leave
) -> None:
    leave("HEAD", 20.0)
    leave("other", 21.0, **otherwise)
    row = overview(repository).rows[1]
    assert (row.name, row.difference, row.note) == ("other", None, note)


def test_metrics_that_are_not_the_locks_are_refused(repository: Path, leave: Leave) -> None:
    leave("HEAD", 20.0)
    leave("damaged", 19.0, damaged=True)
    assert "must match its digest in dvc.lock" in overview(repository).left_out["damaged"]


def test_a_name_that_is_not_there(repository: Path, leave: Leave) -> None:
    with pytest.raises(UserError, match="There are: none; `dvc repro` makes the first"):
        overview(repository)
    leave("HEAD", 20.0)
    with pytest.raises(UserError, match=r"'nobody': must be one that was scored.*There are: HEAD"):
        overview(repository, baseline="nobody")


def test_the_table_fits_a_terminal(
    repository: Path, leave: Leave, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave("HEAD", 20.0)
    leave("slower", 23.0, train={"learning_rate": 0.5})
    leave("early", 20.0, without=("evaluate",))
    queue = Queue({"Success": 11, "Failed": 1}, {"high": "train: loss must be finite"})
    monkeypatch.setattr("coma_gen.experiments.overview.read_queue", lambda _root: queue)
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit) as ended:
        main(["experiments"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[1].split() == [
        *("experiment", "bits", "validation", "nats", "illegal"),
        *("against", "HEAD", "what", "differs"),
    ]
    assert lines[2].split()[:4] == ["HEAD*", "20.00", "[19.00,", "21.00]"] and "baseline" in lines[2]
    assert "+3.00 [+0.00, +4.50]   train.learning_rate=0.5" in lines[3]
    assert "The same in all: ngram 30.00, tokens 5,000, parameters 1,000,000" in text
    assert "DVC's queue: 11 ended, 1 failed\n  - high: train: loss must be finite\n" in text
    assert "Not scored, 1:" in text and max(map(len, lines[:4])) <= 160


def test_the_table_for_programs(
    repository: Path, leave: Leave, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave("HEAD", 20.0)
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit):
        main(["experiments", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["baseline"] == "HEAD" and told["rows"][0]["figures"]["bits"] == 20.0
