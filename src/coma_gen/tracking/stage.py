"""The `track` stage: completes the MLflow run of the results in the workspace.

The run is built from the files alone: DVC may have restored all of them from its cache without any training
on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from coma_gen.config.schema import Params
from coma_gen.core.artifact import read_manifest, verify_artifact
from coma_gen.core.errors import UserError
from coma_gen.core.io import read_json, sha256_bytes, sha256_file, write_json
from coma_gen.evaluation.headline import BITS
from coma_gen.tracking.registry import Score, register_model
from coma_gen.tracking.run_id import WORKSPACE, identify
from coma_gen.tracking.run_record import Experiment, Lineage, sync_complete
from coma_gen.tracking.store import open_store
from coma_gen.tracking.view import CHANGED_TAG, CORPUS_TAG
from coma_gen.tracking.words import Story, version_note
from coma_gen.workspace.fingerprint import training_digest
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.presets import format_flags
from coma_gen.workspace.verify import changed_params

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
"""The stages that write metrics/<stage>.json."""
LOGGED_FOLDERS = ("samples", "report", "evaluation")
SEALED_FOLDERS = ("corpus", "tokenizer", "model")
SPLITS = {"train": "training", "validation": "validation", "test": "testing"}
"""Split -> MLflow's name of its purpose."""
MINI_SOURCE = "ten performances of MAESTRO v3.0.0, from the source distribution of miditok 3.1.0"
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser, since dvc.lock is long."""
TRAINER_LOCK = "trainer.lock"
"""Lock file of a trainer in its resume folder."""


def track_workspace(params: Params, workspace: Workspace) -> None:
    """Completes the run, registers the model, writes data/tracked.json, and deletes the checkpoints.

    Raises:
        UserError: If an output of a stage is missing or damaged, or the store does not answer. No results are
            lost.
    """
    for kind in (*SEALED_FOLDERS, *LOGGED_FOLDERS):
        verify_artifact(workspace.data(kind), kind=kind)
    resume = workspace.resume / training_digest(workspace.root)
    name, key = identify(workspace.root)
    story = collect_story(params, workspace, name)
    experiment = describe(params, workspace, story, key=key, speed=resume / "speed.csv")
    store = open_store(workspace.home)
    tracked = sync_complete(store, experiment)
    note = partial(version_note, story, tracked.figures, tracked.page)
    register_model(store, tracked.run_id, folder=workspace.data("model"), score=_score(workspace), note=note)
    write_json(workspace.data("tracked.json"), {"content": _content(experiment)})
    _delete_finished_checkpoints(resume)


def describe(params: Params, workspace: Workspace, story: Story, *, key: str, speed: Path) -> Experiment:
    """Collects the files and facts of the experiment in a workspace."""
    digests = {kind: read_manifest(workspace.data(kind), kind=kind).digest for kind in SEALED_FOLDERS}
    lock = _lock_digest(workspace.root / "dvc.lock")
    tags = {CHANGED_TAG: story.changes()} if story.changed is not None else {}
    tags |= {CORPUS_TAG: story.corpus} | {f"digest.{kind}": digest for kind, digest in digests.items()}
    tags |= {"digest.lock": lock} if lock else {}
    return Experiment(
        key=key,
        name=story.name,
        params=params.model_dump(mode="json"),
        metrics={stage: workspace.metrics(f"{stage}.json") for stage in STAGES},
        curve=workspace.metrics("curve.csv"),
        speed=speed,
        artifacts={name: workspace.data(name) for name in LOGGED_FOLDERS},
        datasets=[_lineage(params, workspace, split, use) for split, use in SPLITS.items()],
        tags=tags,
        git_commit=story.commit,
        story=story,
    )


def _lineage(params: Params, workspace: Workspace, split: str, use: str) -> Lineage:
    """Describes one split of the corpus as a dataset."""
    corpus = params.download.corpus
    sources = {"maestro": params.download.maestro_url, "maestro-mini": MINI_SOURCE}
    counts = read_json(workspace.metrics("split.json"))[split]
    tokens = read_json(workspace.metrics("shard.json")).get(split, {}).get("tokens")
    return Lineage(
        name=f"{corpus}, {split}",
        digest=sha256_file(workspace.data("split") / f"{split}.csv"),
        source=sources.get(corpus, f"download.corpus={corpus}"),
        profile={**counts, "tokens": tokens} if tokens is not None else counts,
        context=use,
    )


def collect_story(params: Params, workspace: Workspace, name: str) -> Story:
    """Collects the facts for the description of the experiment in a workspace."""
    train = read_json(workspace.metrics("split.json"))["train"]
    try:
        settings, changed = params.model_dump(mode="json"), dict[str, dict[str, Any]]()
        for section, setting in changed_params(workspace.root):
            changed.setdefault(section, {})[setting] = settings[section][setting]
        known = changed
    except (UserError, OSError):  # no git, or nothing committed
        known = None
    kind = "conformer" if "convolution" in params.model.branches else "transformer"
    return Story(
        name=name,
        corpus=params.download.corpus,
        model=kind,
        performances=int(train["performances"]),
        hours=float(train["hours"]),
        changed=known,
        flags=tuple(format_flags(known or {})),
        commit=_commit(workspace.root),
        is_experiment=name != WORKSPACE,
    )


def _score(workspace: Workspace) -> Score:
    evaluated = read_json(workspace.metrics("evaluate.json"))["test"]
    split = read_json(workspace.metrics("split.json"))["test"]
    return Score(
        bits_per_note=float(evaluated[BITS]),
        split=sha256_file(workspace.data("split") / "test.csv"),
        notes=int(split["notes"]),
    )


def _commit(root: Path) -> str | None:
    """Returns the commit that the experiment is based on; None outside of git."""
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
    """Computes the digest of dvc.lock without this stage, whose entry is written after it has run."""
    if not path.exists():
        return None
    lock = yaml.load(path.read_text(encoding="utf-8"), Loader=_SafeLoader)  # noqa: S506 - a safe loader
    stages = {name: stage for name, stage in lock.get("stages", {}).items() if name != "track"}
    return sha256_bytes(json.dumps(stages, sort_keys=True).encode("utf-8"))


def _content(experiment: Experiment) -> str:
    """Computes the digest of the tracked results, equal on all machines with the same results."""
    digests = {kind: experiment.tags[f"digest.{kind}"] for kind in SEALED_FOLDERS}
    files = {stage: sha256_file(path) for stage, path in experiment.metrics.items()}
    content: list[Any] = [experiment.params, digests, files, sha256_file(experiment.curve)]
    return sha256_bytes(json.dumps(content, sort_keys=True).encode("utf-8"))


def _delete_finished_checkpoints(resume: Path) -> None:
    """Deletes the checkpoints of a finished run, unless a trainer is using them."""
    if not resume.exists():
        return
    try:
        with FileLock(resume / TRAINER_LOCK, timeout=0):
            shutil.rmtree(resume, ignore_errors=True)
    except Timeout:
        pass
