"""Completes the MLflow run of an experiment from its files, whatever was sent before."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import read_json, sha256_bytes, sha256_file, without_links
from coma_gen.tracking.client import Dataset, DatasetInput, InputTag
from coma_gen.tracking.csv_tail import Row, read_rows
from coma_gen.tracking.figures import TABLE, compute_speed_figures, write_table
from coma_gen.tracking.flatten import Measures, flat_metrics
from coma_gen.tracking.run_sync import (
    COMMIT_TAG,
    COMPLETE_TAG,
    FINISHED,
    RunConflictError,
    RunSync,
    open_run_sync,
)
from coma_gen.tracking.store import Store
from coma_gen.tracking.view import NOTE_TAG
from coma_gen.tracking.words import Story, run_note

TABLES = "metrics"
"""Artifact folder with the files of metrics/ and one table of all figures."""
TABLES_TAG = "mlflow.loggedArtifacts"
"""Tag that lists the artifacts that MLflow can compare between runs as tables."""
HEADLINE = "headline"
"""The stage whose figures are a run's metrics in MLflow."""
MAX_DATASET_DIGEST = 36


@dataclass(frozen=True)
class Lineage:
    """A dataset that an experiment used.

    Attributes:
        name: Name, such as "maestro-mini, train".
        digest: SHA-256; MLflow shows its first characters, the profile contains all of it.
        source: URL or description of the origin.
        profile: Statistics, such as performances and hours.
        context: Purpose, such as "training".
    """

    name: str
    digest: str
    source: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    context: str = "training"


@dataclass(frozen=True)
class Experiment:
    """The files and facts of one experiment.

    Attributes:
        key: Unique key, known before training.
        name: Name of the DVC experiment, or "workspace".
        params: Settings, nested as in params.yaml.
        metrics: Stage -> metrics file.
        curve: File of the learning curve.
        speed: File of training speeds, if it still exists.
        artifacts: Folder within the run's artifacts -> local file or folder.
        datasets: Datasets that were used.
        tags: Further tags, such as digests.
        git_commit: Git commit of the code, if known.
        story: Facts for the run's description; None for no description.
    """

    key: str
    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Path]
    curve: Path
    speed: Path | None = None
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    datasets: Sequence[Lineage] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    story: Story | None = None


@dataclass(frozen=True)
class Tracked:
    """The result of a sync.

    Attributes:
        run_id: MLflow's id of the run.
        sent: Number of metric points that were missing and sent.
        page: Fragment (from `#` on) of the run's page in MLflow.
        figures: Headline figures.
    """

    run_id: str
    sent: int
    page: str
    figures: Mapping[str, float]


def sync_complete(store: Store, experiment: Experiment) -> Tracked:
    """Completes the run of an experiment and marks it FINISHED; a complete run is not changed.

    Raises:
        UserError: If a file is missing or malformed, or the store does not answer.
    """
    measures = {stage: flat_metrics(stage, read_json(path)) for stage, path in experiment.metrics.items()}
    missing = [path for path in (experiment.curve, *experiment.artifacts.values()) if not path.exists()]
    if missing:
        raise UserError(
            *(Fault(str(path), "must be there to be tracked", "no such file or folder") for path in missing)
        )
    curve = read_rows(experiment.curve)
    with (
        _with_tables(experiment, measures.values()) as whole,
        open_run_sync(store, key=experiment.key, name=experiment.name, params=experiment.params) as sync,
    ):
        try:
            figures = _send(sync, whole, curve, measures)
        except RunConflictError:
            sync.restart_run()
            figures = _send(sync, whole, curve, measures)
        return Tracked(run_id=sync.run_id, sent=sync.sent, page=_page(sync), figures=figures)


def _page(sync: RunSync) -> str:
    return f"#/experiments/{sync.store.experiment_id}/runs/{sync.run_id}"


@contextmanager
def _with_tables(experiment: Experiment, measures: Iterable[Measures]) -> Iterator[Experiment]:
    """Adds an artifact folder with all figures, as the original files and as one table."""
    with tempfile.TemporaryDirectory(prefix="coma-gen-tables-") as temporary:
        folder = Path(temporary)
        write_table(folder, measures)
        shutil.copyfile(experiment.curve, folder / "curve.csv")
        for stage, path in experiment.metrics.items():
            shutil.copyfile(path, folder / f"{stage}.json")
        yield replace(experiment, artifacts={**experiment.artifacts, TABLES: folder})


def _send(
    sync: RunSync, experiment: Experiment, curve: list[Row], measures: Mapping[str, Measures]
) -> dict[str, float]:
    speed = [] if experiment.speed is None else read_rows(experiment.speed)
    figures = _headline(measures)
    sync.send_figures(figures, compute_speed_figures(curve, speed))
    sync.sync_curve(curve)
    sync.verify_curve(curve)
    sync.sync_speed(speed)
    tags = {**experiment.tags, TABLES_TAG: json.dumps([{"path": f"{TABLES}/{TABLE}", "type": "table"}])}
    if experiment.git_commit is not None:
        tags |= {COMMIT_TAG: experiment.git_commit, "mlflow.source.git.commit": experiment.git_commit}
    if experiment.story is not None and NOTE_TAG not in sync.run().data.tags:
        tags[NOTE_TAG] = run_note(experiment.story, figures, _page(sync))
    sync.set_tags(tags)
    _send_datasets(sync, experiment.datasets)
    _send_artifacts(sync, experiment.artifacts)
    sync.mark(FINISHED)
    return figures


def _headline(measures: Mapping[str, Measures]) -> dict[str, float]:
    """Returns the figures of metrics/headline.json, without the stage prefix."""
    numbers = measures[HEADLINE].numbers if HEADLINE in measures else {}
    return {name.removeprefix(f"{HEADLINE}/"): value for name, value in numbers.items()}


def _send_datasets(sync: RunSync, datasets: Sequence[Lineage]) -> None:
    inputs = [_dataset_input(lineage) for lineage in datasets]
    if inputs:
        sync.store.ask(lambda: sync.store.client.log_inputs(sync.run_id, datasets=inputs))


def _dataset_input(lineage: Lineage) -> DatasetInput:
    is_address = lineage.source.startswith(("http://", "https://"))
    source = {"url": lineage.source} if is_address else {"tags": {"mlflow.source.name": lineage.source}}
    dataset = Dataset(
        name=lineage.name,
        digest=lineage.digest[:MAX_DATASET_DIGEST],
        source_type="http" if is_address else "code",
        source=json.dumps(source),
        profile=json.dumps({"sha256": lineage.digest, **lineage.profile}),
    )
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", lineage.context)])


def _send_artifacts(sync: RunSync, artifacts: Mapping[str, Path]) -> None:
    """Sends the files that the run lacks.

    Raises:
        RunConflictError: If the run has other files.
    """
    client, digest = sync.store.client, _digest(artifacts)
    present = sync.run().data.tags.get(COMPLETE_TAG)
    if present is not None and present != digest:
        raise RunConflictError
    listed = {item.path for item in sync.store.ask(lambda: client.list_artifacts(sync.run_id))}
    for folder, path in artifacts.items():
        if present == digest and folder.split("/")[0] in listed:
            continue
        send = client.log_artifacts if path.is_dir() else client.log_artifact
        with without_links(path) as plain:
            sync.store.ask(partial(send, sync.run_id, str(plain), folder))
    sync.set_tags({COMPLETE_TAG: digest})


def _digest(artifacts: Mapping[str, Path]) -> str:
    """Computes the digest of all files and their paths in the run."""
    files = {}
    for folder, path in artifacts.items():
        for file in [path] if path.is_file() else (item for item in path.rglob("*") if item.is_file()):
            inner = file.name if path.is_file() else file.relative_to(path).as_posix()
            files[f"{folder}/{inner}"] = sha256_file(file)
    return sha256_bytes(json.dumps(files, sort_keys=True).encode("utf-8"))
