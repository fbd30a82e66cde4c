"""The stage `track`: makes the MLflow run of what lies in the workspace complete, wherever it was computed.

DVC may have restored every file from its cache, with nothing trained here and nothing followed; the run comes
from the files alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from coma_gen.artefact import open_artefact, read_manifest
from coma_gen.files import read_json, sha256_bytes, sha256_file, write_json
from coma_gen.params.reading import read_yaml
from coma_gen.params.sections import Params
from coma_gen.tracking.experiment import Experiment, Lineage, sync_complete
from coma_gen.tracking.identity import identify
from coma_gen.tracking.register import Score, register_model
from coma_gen.tracking.store import open_store
from coma_gen.workspace.key import training_digest
from coma_gen.workspace.paths import Workspace

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
"""Those that write metrics/<stage>.json."""
ARTIFACTS = ("samples", "report", "evaluation")
ARTEFACTS = ("corpus", "tokenizer", "model")
BITS_PER_NOTE = "bits_per_note_10ms"
TRAINER_LOCK = "trainer.lock"
"""What a trainer holds of its resume folder."""


def track_workspace(params: Params, workspace: Workspace) -> None:
    """Completes the run, registers the model, writes data/tracked.json, and lets the checkpoints go.

    Raises:
        UserError: when something that a stage writes is missing or not whole, or the store does not answer;
            all results stay.
    """
    for kind in (*ARTEFACTS, *ARTIFACTS):
        open_artefact(workspace.data(kind), kind=kind)
    resume = workspace.resume / training_digest(workspace.root)
    experiment = describe(params, workspace, speed=resume / "speed.csv")
    store = open_store(workspace.home)
    tracked = sync_complete(store, experiment)
    register_model(
        store,
        tracked.run_id,
        folder=workspace.data("model"),
        score=_score(workspace),
    )
    write_json(workspace.data("tracked.json"), {"content": _content(experiment)})
    _let_go(resume)


def describe(params: Params, workspace: Workspace, *, speed: Path) -> Experiment:
    """What the workspace's files say of its experiment."""
    name, key = identify(workspace.root)
    digests = {kind: read_manifest(workspace.data(kind), kind=kind).digest for kind in ARTEFACTS}
    tags = {f"{kind}.digest": digest for kind, digest in digests.items()}
    lock = _lock_digest(workspace.root / "dvc.lock")
    return Experiment(
        key=key,
        name=name,
        params=params.model_dump(mode="json"),
        metrics={stage: workspace.metrics(f"{stage}.json") for stage in STAGES},
        curve=workspace.metrics("curve.csv"),
        speed=speed,
        artifacts={name: workspace.data(name) for name in ARTIFACTS},
        datasets=[_lineage(params, workspace, digests["corpus"])],
        tags=tags if lock is None else {**tags, "dvc.lock": lock},
        git_commit=_commit(workspace.root),
    )


def _lineage(params: Params, workspace: Workspace, digest: str) -> Lineage:
    corpus = params.download.corpus
    source = params.download.maestro_url if corpus == "maestro" else f"download.corpus={corpus}"
    split = read_json(workspace.metrics("split.json"))
    profile = {name: split[name] for name in ("train", "validation", "test")}
    return Lineage(name=corpus, digest=digest, source=source, profile=profile)


def _score(workspace: Workspace) -> Score:
    evaluated = read_json(workspace.metrics("evaluate.json"))["test"]
    split = read_json(workspace.metrics("split.json"))["test"]
    return Score(
        bits_per_note=float(evaluated[BITS_PER_NOTE]),
        split=sha256_file(workspace.data("split") / "test.csv"),
        notes=int(split["notes"]),
    )


def _commit(root: Path) -> str | None:
    """The commit that the experiment started from; none outside of git."""
    baseline = os.environ.get("DVC_EXP_BASELINE_REV")
    if baseline:
        return baseline
    words = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _lock_digest(path: Path) -> str | None:
    """The digest of dvc.lock but for this stage, whose own entry is written after it has run."""
    if not path.exists():
        return None
    stages = {name: stage for name, stage in read_yaml(path).get("stages", {}).items() if name != "track"}
    return sha256_bytes(json.dumps(stages, sort_keys=True).encode("utf-8"))


def _content(experiment: Experiment) -> str:
    """A digest of what was tracked: the same on every machine that has the same results."""
    digests = {name: tag for name, tag in experiment.tags.items() if name.endswith(".digest")}
    files = {stage: sha256_file(path) for stage, path in experiment.metrics.items()}
    content: list[Any] = [experiment.params, digests, files, sha256_file(experiment.curve)]
    return sha256_bytes(json.dumps(content, sort_keys=True).encode("utf-8"))


def _let_go(resume: Path) -> None:
    """Removes a finished run's checkpoints, unless a trainer is at work there."""
    if not resume.exists():
        return
    try:
        with FileLock(resume / TRAINER_LOCK, timeout=0):
            shutil.rmtree(resume, ignore_errors=True)
    except Timeout:
        pass
