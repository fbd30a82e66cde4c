"""One empty store made once and copied, experiments made of files, MLflow's own warnings left out by name."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coma_gen.core.errors
from coma_gen.tracking.run_record import Experiment, Lineage
from coma_gen.tracking.store import Store, open_store
from coma_gen.tracking.uri import ARTIFACTS, DATABASE
from coma_gen.tracking.words import Story

OF_MLFLOW = (
    "ignore:The ``noload`` loader strategy is deprecated",
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
)
"""What MLflow 3.17 does while it is imported."""
HEADER = "step,tokens,train_loss,learning_rate,grad_norm,validation_nll\n"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in OF_MLFLOW:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def _own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def own_code() -> dict[str, str]:
    """An environment whose Python finds this library, wherever it is started."""
    source = str(Path(coma_gen.core.errors.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an empty store; its tables take seconds to make."""
    home = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_store(home)
    return home


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    """A home of one's own with an empty store."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(template / DATABASE, home / DATABASE)
    connection = sqlite3.connect(home / DATABASE)
    with connection:
        query = "UPDATE experiments SET artifact_location = ? WHERE name = 'coma-gen'"
        connection.execute(query, (str(home / ARTIFACTS),))
    connection.close()
    return home


@pytest.fixture
def store(home: Path) -> Store:
    return open_store(home, patience=20.0)


def curve_text(steps: range) -> str:
    rows = (
        f"{step},{step * 2048},{5 - step / 997:.6g},0.003,{1 + 1 / step:.6g},{'' if step % 50 else 4.1}\n"
        for step in steps
    )
    return HEADER + "".join(rows)


@pytest.fixture
def write_curve() -> Callable[[Path, range], Path]:
    def write(path: Path, steps: range) -> Path:
        path.write_text(curve_text(steps), encoding="utf-8")
        return path

    return write


PARAMS: dict[str, Any] = {
    "train": {"learning_rate": 3e-3, "steps": 100, "clip_norm": None, "augment": True},
    "model": {"window_sizes": [32, 128], "attention_position": "xpos"},
}
METRICS: dict[str, Any] = {
    "split": {"train": {"performances": 962, "hours": 159.203, "notes": 5659328}, "unreadable": {}},
    "train": {"best": {"step": 50, "validation_nll": 4.1}, "tokens": 204800, "parameters": 423168},
    "baseline": {
        "test": {name: {"bits_per_note_10ms": bits} for name, bits in (("unigram", 9.5), ("bigram", 8.5))}
    },
    "evaluate": {
        "test": {"nll_per_token": 4.23457, "bits_per_note_10ms": 0.1 + 0.2, "tiny": 1.23456e-17},
        "corpus": "synthetic",
    },
    "sample": {"valid": [1, 0.5, None], "prompted": True},
    "headline": {"bits": 0.1 + 0.2, "ngram": 8.5, "nats": 4.23457, "tokens": 204800, "parameters": 423168},
}


@pytest.fixture
def make_experiment(tmp_path: Path, write_curve: Callable[[Path, range], Path]) -> Callable[..., Experiment]:
    """An experiment's files, and what says where they are."""

    def make(
        key: str = "workspace-1",
        *,
        params: dict[str, Any] = PARAMS,
        metrics: dict[str, Any] = METRICS,
        steps: int = 100,
    ) -> Experiment:
        folder = tmp_path / f"files-{key}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "samples").mkdir(parents=True)
        (folder / "samples" / "one.mid").write_bytes(b"MThd")
        (folder / "index.html").write_text("<html></html>")
        for stage, content in metrics.items():
            (folder / f"{stage}.json").write_text(json.dumps(content))
        return Experiment(
            key=key,
            name=key.split("-")[0],
            params=params,
            metrics={stage: folder / f"{stage}.json" for stage in metrics},
            curve=write_curve(folder / "curve.csv", range(10, steps + 1, 10)),
            artifacts={"samples": folder / "samples", "report": folder / "index.html"},
            datasets=[Lineage("maestro-mini", "ab" * 32, "https://example.org/archive.zip", {"hours": 2.8})],
            story=Story(key.split("-")[0], "maestro-mini", changed={}),
            tags={"digest.tokenizer": "cd" * 32, "changed": "nothing"},
            git_commit="ef" * 20,
        )

    return make


@pytest.fixture
def points(home: Path) -> Callable[[], list[tuple[str, int, float]]]:
    """Every metric point of every active run, as the database has it, in order."""

    def read() -> list[tuple[str, int, float]]:
        connection = sqlite3.connect(home / DATABASE)
        query = (
            "SELECT key, step, value FROM metrics JOIN runs USING (run_uuid) "
            "WHERE lifecycle_stage = 'active' ORDER BY key, step, timestamp"
        )
        rows = connection.execute(query).fetchall()
        connection.close()
        return rows

    return read


@pytest.fixture
def count_runs(store: Store) -> Callable[[], int]:
    return lambda: len(store.client.search_runs([store.experiment_id]))
