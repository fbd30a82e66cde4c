"""A finished run records the values of the files exactly, and once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coma_gen.core.errors import UserError
from coma_gen.tracking.csv_tail import read_rows
from coma_gen.tracking.flatten import flat_metrics
from coma_gen.tracking.run_record import Experiment, sync_complete
from coma_gen.tracking.run_sync import open_run_sync
from coma_gen.tracking.store import Store
from coma_gen.tracking.uri import DATABASE

Make = Callable[..., Experiment]
Points = Callable[[], list[tuple[str, int, float]]]


def counts(home: Path) -> dict[str, int]:
    """Rows of every table that a run writes to."""
    connection = sqlite3.connect(home / DATABASE)
    tables = ("runs", "metrics", "latest_metrics", "params", "tags", "datasets", "inputs", "input_tags")
    found = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    connection.close()
    return found


def numbers(experiment: Experiment) -> dict[str, float]:
    return {
        name: value
        for stage, path in experiment.metrics.items()
        for name, value in flat_metrics(stage, json.loads(path.read_text())).numbers.items()
    }


def test_everything_is_there_and_equal(store: Store, make_experiment: Make, points: Points) -> None:
    experiment = make_experiment()
    tracked = sync_complete(store, experiment)
    run = store.client.get_run(tracked.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "workspace"
    wanted = json.loads(experiment.metrics["headline"].read_text())
    assert {name: run.data.metrics[name] for name in wanted} == wanted
    assert not any(name.startswith(("evaluate", "headline")) for name in run.data.metrics)
    assert run.data.params["train.clip_norm"] == "null"
    assert run.data.params["model.window_sizes"] == "[32, 128]"
    tags = run.data.tags
    assert (tags["dvc.exp"], tags["digest.key"]) == ("workspace", "workspace-1")
    assert tags["git.commit"] == tags["mlflow.source.git.commit"] == "ef" * 20
    assert tags["digest.tokenizer"] == "cd" * 32
    assert tags["mlflow.note.content"].startswith(
        "**0.30 bits per note** on the test split of maestro-mini, 8.20"
    )
    assert [(step, value) for name, step, value in points() if name == "nats"] == [(0, 4.23457)]


def test_all_figures_are_in_one_table_that_mlflow_reads(store: Store, make_experiment: Make) -> None:
    from mlflow.artifacts import load_dict

    experiment = make_experiment()
    run = store.client.get_run(sync_complete(store, experiment).run_id)
    (shown,) = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert shown == {"path": "metrics/figures.json", "type": "table"}
    table = load_dict(f"{run.info.artifact_uri}/{shown['path']}")
    cells = dict(table["data"])
    assert table["columns"] == ["figure", "value"]
    assert cells == {**numbers(experiment), "evaluate/corpus": "synthetic", "sample/prompted": "true"}
    folder = Path(run.info.artifact_uri) / "metrics"
    assert (folder / "curve.csv").read_bytes() == experiment.curve.read_bytes()
    assert all((folder / path.name).read_bytes() == path.read_bytes() for path in experiment.metrics.values())


def test_a_description_that_a_person_wrote_stays(store: Store, make_experiment: Make) -> None:
    run_id = sync_complete(store, make_experiment()).run_id
    store.client.set_tag(run_id, "mlflow.note.content", "the good one")
    sync_complete(store, make_experiment())
    assert store.client.get_run(run_id).data.tags["mlflow.note.content"] == "the good one"


def test_artifacts_and_dataset_are_there(store: Store, make_experiment: Make) -> None:
    from mlflow.data import get_source

    run = store.client.get_run(sync_complete(store, make_experiment()).run_id)
    assert {item.path for item in store.client.list_artifacts(run.info.run_id)} == {
        "samples",
        "report",
        "metrics",
    }
    folder = Path(run.info.artifact_uri)
    assert folder.is_relative_to(store.home / "mlartifacts")
    assert (folder / "samples" / "one.mid").read_bytes() == b"MThd"
    assert (folder / "report" / "index.html").exists()
    dataset = run.inputs.dataset_inputs[0]
    assert (dataset.dataset.name, dataset.dataset.digest) == ("maestro-mini", "ab" * 18)
    assert json.loads(dataset.dataset.profile) == {"sha256": "ab" * 32, "hours": 2.8}
    assert get_source(dataset).url == "https://example.org/archive.zip"
    assert [(tag.key, tag.value) for tag in dataset.tags] == [("mlflow.data.context", "training")]


def test_made_twice_it_adds_nothing(store: Store, make_experiment: Make) -> None:
    experiment = make_experiment()
    first = sync_complete(store, experiment)
    before, end = counts(store.home), store.client.get_run(first.run_id).info.end_time
    second = sync_complete(store, experiment)
    assert (second.run_id, second.sent) == (first.run_id, 0)
    assert counts(store.home) == before
    assert store.client.get_run(first.run_id).info.end_time == end


def test_what_a_follower_sent_is_completed(store: Store, make_experiment: Make, points: Points) -> None:
    experiment = make_experiment()
    with open_run_sync(store, key=experiment.key, name=experiment.name, params=experiment.params) as sync:
        sync.sync_curve(read_rows(experiment.curve)[:4])
        sync.mark("KILLED")
    tracked = sync_complete(store, experiment)
    assert tracked.run_id == sync.run_id
    assert store.client.get_run(tracked.run_id).info.status == "FINISHED"
    losses = [(step, value) for name, step, value in points() if name == "loss/train"]
    assert losses == [(row.step, row.values["train_loss"]) for row in read_rows(experiment.curve)]


@pytest.mark.parametrize("interrupted_at", range(1, 9))
def test_interrupted_at_any_request_it_is_completed_later(
    store: Store, make_experiment: Make, monkeypatch: pytest.MonkeyPatch, interrupted_at: int
) -> None:
    whole = counts_of_a_whole_run(store, make_experiment)
    experiment, asked = make_experiment("other-1"), []
    ask = Store.ask

    def interrupted(self: Store, call: Callable[[], Any]) -> Any:
        asked.append(1)
        answer = ask(self, call)
        if len(asked) == 2 * interrupted_at:
            raise KeyboardInterrupt
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Store, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sync_complete(store, experiment)
    sync_complete(store, experiment)
    twice = {table: 2 * count for table, count in whole.items()} | {"datasets": whole["datasets"]}
    assert counts(store.home) == twice


def counts_of_a_whole_run(store: Store, make_experiment: Make) -> dict[str, int]:
    sync_complete(store, make_experiment())
    return counts(store.home)


def test_other_results_under_the_same_key_begin_a_new_run(
    store: Store, make_experiment: Make, count_runs: Callable[[], int]
) -> None:
    first = sync_complete(store, make_experiment())
    for nats in (3.5, 3.25):
        metrics = {"headline": {"nats": nats}}
        again = sync_complete(store, make_experiment(metrics=metrics))
        assert again.run_id != first.run_id
        assert store.client.get_run(again.run_id).data.metrics["nats"] == nats
    shorter = make_experiment(metrics=metrics, steps=50)
    third = sync_complete(store, shorter)
    assert third.run_id != again.run_id
    assert len(store.client.get_metric_history(third.run_id, "loss/train")) == 5
    (shorter.artifacts["samples"] / "one.mid").write_bytes(b"other")
    fourth = sync_complete(store, shorter)
    assert fourth.run_id != third.run_id
    assert count_runs() == 1


def test_what_a_machine_measured_is_the_first_and_no_contradiction(
    store: Store, make_experiment: Make, tmp_path: Path, points: Points
) -> None:
    experiment = replace(make_experiment(), speed=tmp_path / "speed.csv")
    for rate in (1024, 512):
        (tmp_path / "speed.csv").write_text(f"step,tokens_per_second\n50,{rate}\n100,{rate}\n")
        run_id = sync_complete(store, experiment).run_id
    run = store.client.get_run(run_id)
    assert (run.data.metrics["tokens_per_second"], run.data.metrics["training_seconds"]) == (1024, 200)
    assert [step for name, step, _ in points() if name == "training_seconds"] == [0]
    (tmp_path / "speed.csv").unlink()
    assert sync_complete(store, experiment).sent == 0


def test_the_commit_may_be_told_later(store: Store, make_experiment: Make) -> None:
    experiment = make_experiment()
    first = sync_complete(store, replace(experiment, git_commit=None))
    assert "git.commit" not in store.client.get_run(first.run_id).data.tags
    assert sync_complete(store, experiment).run_id == first.run_id
    assert store.client.get_run(first.run_id).data.tags["git.commit"] == "ef" * 20


def test_missing_files_are_all_named(store: Store, make_experiment: Make, tmp_path: Path) -> None:
    experiment = make_experiment()
    nowhere = replace(experiment, curve=tmp_path / "no.csv", artifacts={"samples": tmp_path / "none"})
    with pytest.raises(UserError) as caught:
        sync_complete(store, nowhere)
    assert [Path(fault.where).name for fault in caught.value.faults] == ["no.csv", "none"]
