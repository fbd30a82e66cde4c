"""Reads what MLflow recorded of a checkout's runs, and locks its store for a while."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.tracking.figures import TABLE
from coma_gen.tracking.flatten import flat_metrics, flat_params
from coma_gen.tracking.uri import DATABASE, EXPERIMENT, MODEL, tracking_address

TABLES = "metrics"
CURVES = ("loss/train", "loss/validation", "optimizer/learning_rate", "optimizer/grad_norm")
STAGES = (
    "download",
    "split",
    "fit_tokenizer",
    "shard",
    "baseline",
    "train",
    "evaluate",
    "sample",
    "headline",
)
OF_MLFLOW = (
    "ignore:The ``noload`` loader strategy is deprecated",
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
)
"""What MLflow 3.17 does while it is imported."""


@dataclass(frozen=True)
class Recorded:
    """A run as MLflow has it."""

    name: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    artifacts: set[str]
    table: dict[str, float | str]
    datasets: list[str]
    models: int

    def lacks(self, params: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
        """What it lacks or has otherwise, to be the complete record of these params and metrics.

        Args:
            params: as in params.yaml.
            metrics: stage -> what metrics/<stage>.json holds.
        """
        flat = [flat_metrics(stage, content) for stage, content in metrics.items()]
        numbers = {name: value for part in flat for name, value in part.numbers.items()}
        texts = {name: text for part in flat for name, text in part.texts.items()}
        figures = metrics["headline"]
        faults = [f"{name} is {self.metrics.get(name)}" for name in figures if not self._has(name, figures)]
        faults += [
            f"{name} in the table"
            for name, cell in {**numbers, **texts}.items()
            if self.table.get(name) != cell
        ]
        if self.params != flat_params(params):
            faults.append(f"params {self.params.items() ^ flat_params(params).items()}")
        digests = {f"digest.{name}" for name in ("artifacts", "corpus", "key", "lock", "model", "tokenizer")}
        wanted = {"dvc.exp", "git.commit", "corpus", "changed", "mlflow.note.content", *digests}
        faults += [f"tag {name}" for name in sorted(wanted) if name not in self.tags]
        complete = {
            "status": self.status == "FINISHED",
            "stages": set(metrics) == set(STAGES),
            "artifacts": self.artifacts == {"samples", "report", "evaluation", "metrics"},
            "datasets": len(self.datasets) == 3,
            "models": self.models == 1,
            "learning rates": "optimizer/learning_rate" in self.metrics,
            "few metrics": len([name for name in self.metrics if not name.startswith("system/")])
            <= 15 + len(CURVES),
        }
        return faults + [name for name, good in complete.items() if not good]

    def _has(self, name: str, numbers: dict[str, float]) -> bool:
        return self.metrics.get(name) == numbers[name]


def recorded_runs(checkout: Path) -> list[Recorded]:
    """All runs of a checkout's store, deleted ones left out, the oldest first."""
    from mlflow.artifacts import load_dict

    client, experiment = _client(checkout)
    runs = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
    return [
        Recorded(
            name=run.info.run_name,
            status=run.info.status,
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=dict(run.data.tags),
            table=dict(load_dict(f"{run.info.artifact_uri}/{TABLES}/{TABLE}")["data"]),
            artifacts={item.path for item in client.list_artifacts(run.info.run_id)},
            datasets=[used.dataset.digest for used in run.inputs.dataset_inputs],
            models=len(run.outputs.model_outputs),
        )
        for run in runs
    ]


def model_versions(checkout: Path) -> list[str]:
    """The digests of the models in the registry."""
    client, _ = _client(checkout)
    return [found.tags["model.digest"] for found in client.search_model_versions(f"name='{MODEL}'")]


def metrics_of(checkout: Path) -> dict[str, Any]:
    """Stage -> what metrics/<stage>.json holds."""
    return {stage: json.loads((checkout / "metrics" / f"{stage}.json").read_text()) for stage in STAGES}


def _client(checkout: Path) -> tuple[Any, str]:
    from coma_gen.tracking.client import MlflowClient

    uri = tracking_address(checkout).uri
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    return client, client.get_experiment_by_name(EXPERIMENT).experiment_id


def lock_store(home: Path, seconds: float) -> threading.Thread:
    """Locks the store for so long; returns once it is locked."""
    held = threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(home / DATABASE, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        held.set()
        time.sleep(seconds)
        connection.execute("ROLLBACK")
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    return thread
