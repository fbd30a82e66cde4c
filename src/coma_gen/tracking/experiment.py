"""A complete run: everything that the files say of one experiment, whatever part of it was sent before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from coma_gen.errors import Fault, UserError
from coma_gen.files import read_json, sha256_bytes, sha256_file, without_links
from coma_gen.tracking.door import Dataset, DatasetInput, InputTag
from coma_gen.tracking.flatten import Measures, flat_metrics
from coma_gen.tracking.mirror import FINISHED, ContradictionError, Mirror, open_mirror
from coma_gen.tracking.rows import Row, read_rows
from coma_gen.tracking.store import Store

ARTIFACTS_TAG = "dvc.artifacts"
MAX_DATASET_DIGEST = 36


@dataclass(frozen=True)
class Lineage:
    """Data that an experiment used.

    Attributes:
        name: such as "maestro-mini".
        digest: SHA-256; MLflow shows its beginning, the whole stands in the profile.
        source: where it came from: an address, or words.
        profile: what there is of it, such as performances and hours.
        context: what it was used for.
    """

    name: str
    digest: str
    source: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    context: str = "training"


@dataclass(frozen=True)
class Experiment:
    """All that the files say of one experiment.

    Attributes:
        key: what tells it from all others, known before training.
        name: DVC's name of it, or "workspace".
        params: settings, nested as in params.yaml.
        metrics: stage -> its metrics file.
        curve: training's curve; a file that is not there is an empty curve.
        speed: training's speeds, where they are still there.
        artifacts: folder within the run's artifacts -> a local file or folder.
        datasets: what it was made from.
        tags: more to say of it, such as digests.
        git_commit: what the code was at, where there is one.
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


@dataclass(frozen=True)
class Tracked:
    """What came of it: the run, and the metric points that it still lacked."""

    run_id: str
    sent: int


def sync_complete(store: Store, experiment: Experiment) -> Tracked:
    """Makes the experiment's run complete and marks it FINISHED; a run that is complete is left as it is.

    Raises:
        UserError: when a file is missing or malformed, or the store does not answer.
    """
    measures = {stage: flat_metrics(stage, read_json(path)) for stage, path in experiment.metrics.items()}
    missing = [path for path in (experiment.curve, *experiment.artifacts.values()) if not path.exists()]
    if missing:
        raise UserError(
            *(Fault(str(path), "must be there to be tracked", "no such file or folder") for path in missing)
        )
    curve = read_rows(experiment.curve)
    with open_mirror(store, key=experiment.key, name=experiment.name, params=experiment.params) as mirror:
        try:
            _send(mirror, experiment, curve, measures)
        except ContradictionError:
            mirror.begin_again()
            _send(mirror, experiment, curve, measures)
        return Tracked(run_id=mirror.run_id, sent=mirror.sent)


def _send(mirror: Mirror, experiment: Experiment, curve: list[Row], measures: Mapping[str, Measures]) -> None:
    mirror.sync_curve(curve)
    mirror.prove_curve(curve)
    if experiment.speed is not None:
        mirror.sync_speed(read_rows(experiment.speed))
    last_step = max((row.step for row in curve), default=0)
    numbers = {name: value for part in measures.values() for name, value in part.numbers.items()}
    mirror.send_last(numbers, step=last_step)
    _send_datasets(mirror, experiment.datasets)
    _send_artifacts(mirror, experiment.artifacts)
    tags = {name: text for part in measures.values() for name, text in part.texts.items()}
    tags |= experiment.tags
    if experiment.git_commit is not None:
        tags |= {"git.commit": experiment.git_commit, "mlflow.source.git.commit": experiment.git_commit}
    mirror.set_tags(tags)
    mirror.mark(FINISHED)


def _send_datasets(mirror: Mirror, datasets: Sequence[Lineage]) -> None:
    inputs = [_dataset_input(lineage) for lineage in datasets]
    if inputs:
        mirror.store.ask(lambda: mirror.store.client.log_inputs(mirror.run_id, datasets=inputs))


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


def _send_artifacts(mirror: Mirror, artifacts: Mapping[str, Path]) -> None:
    """Sends files unless the run has them.

    Raises:
        ContradictionError: when the run has other files.
    """
    client, digest = mirror.store.client, _digest(artifacts)
    present = mirror.run().data.tags.get(ARTIFACTS_TAG)
    if present is not None and present != digest:
        raise ContradictionError
    listed = {item.path for item in mirror.store.ask(lambda: client.list_artifacts(mirror.run_id))}
    for folder, path in artifacts.items():
        if present == digest and folder.split("/")[0] in listed:
            continue
        send = client.log_artifacts if path.is_dir() else client.log_artifact
        with without_links(path) as plain:
            mirror.store.ask(partial(send, mirror.run_id, str(plain), folder))
    mirror.set_tags({ARTIFACTS_TAG: digest})


def _digest(artifacts: Mapping[str, Path]) -> str:
    """A digest of all files and the names they have in the run."""
    files = {}
    for folder, path in artifacts.items():
        for file in [path] if path.is_file() else (item for item in path.rglob("*") if item.is_file()):
            inner = file.name if path.is_file() else file.relative_to(path).as_posix()
            files[f"{folder}/{inner}"] = sha256_file(file)
    return sha256_bytes(json.dumps(files, sort_keys=True).encode("utf-8"))
