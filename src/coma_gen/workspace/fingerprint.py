"""Digests that name a run: what it is made of, known before it starts.

The experiment's (all params, all code, the corpus) is what MLflow's run is found by; the training's and the
sharding's (only what the weights, or the shards, depend on) name their resume folders. All read the code of a
stage from dvc.yaml, which lists the files and packages that it runs.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.artifact import read_manifest
from coma_gen.core.io import sha256_bytes, sha256_file

SPEED_ONLY = (
    ("runtime", "processes"),
    ("train", "compile"),
    ("train", "cuda_graphs"),
    ("train", "tensorboard"),
)
"""Settings (section, key) under whose other values a training may go on."""
LIBRARIES = ("torch", "numpy")
"""A checkpoint of other versions of these is not gone on from."""
ENCODERS = ("miditok", "numpy", "pyarrow", "symusic", "tokenizers")
"""Parts of shards that other versions of these wrote are not gone on from."""
CODE = ("src/coma_gen/", "stages/")
"""Where dependencies of code lie; `src` as a whole, which `track` lists, is none of them."""
PASSING = (".pyc", ".partial")
"""Files that come and go beside code; .dvcignore names them for DVC."""


def _digest(content: Any) -> str:
    return sha256_bytes(json.dumps(content, sort_keys=True).encode("utf-8"))


def _code(root: Path, dependencies: Iterable[Any]) -> dict[str, str]:
    """Path -> digest of every file of code among a stage's dependencies, those of its packages included."""
    files: set[Path] = set()
    for name in map(str, dependencies):
        if name.startswith(CODE):
            path = root / name
            files |= set(path.rglob("*")) if path.is_dir() else {path}
    return {
        file.relative_to(root).as_posix(): sha256_file(file)
        for file in sorted(files)
        if not file.is_dir() and "__pycache__" not in file.parts and not file.name.endswith(PASSING)
    }


def experiment_digest(root: Path) -> str:
    """A digest of all params, the code of all stages and the corpus: the same before training and after the
    report.
    """
    stages = read_yaml(root / "dvc.yaml")["stages"]
    code = _code(root, (name for stage in stages.values() for name in stage.get("deps", ())))
    corpus = read_manifest(root / "data" / "corpus", kind="corpus").digest
    return _digest([read_yaml(root / "params.yaml"), code, corpus])


def training_digest(root: Path) -> str:
    """A digest of everything the weights depend on: the train stage's params and code, the shards, the model
    that it starts from, and the libraries that compute.
    """
    stage = read_yaml(root / "dvc.yaml")["stages"]["train"]
    params = read_yaml(root / "params.yaml")
    chosen = {
        section: {name: value for name, value in params[section].items() if (section, name) not in SPEED_ONLY}
        for section in stage["params"]
    }
    shards = read_manifest(root / "data" / "shards", kind="shards").digest
    start = params["train"]["init_from"]
    origin = read_manifest(Path(start), kind="model").digest if start else None
    libraries = [platform.machine(), *(version(name) for name in LIBRARIES)]
    return _digest([chosen, _code(root, stage["deps"]), shards, origin, libraries])


def sharding_digest(root: Path) -> str:
    """A digest of everything the shards depend on: the shard stage's params and code, the split (and with it
    the corpus), the tokenizer, and the libraries that encode.
    """
    stage = read_yaml(root / "dvc.yaml")["stages"]["shard"]
    made_from = [read_manifest(root / "data" / kind, kind=kind).digest for kind in ("split", "tokenizer")]
    libraries = [version(name) for name in ENCODERS]
    params = read_yaml(root / "params.yaml")["shard"]
    return _digest([params, _code(root, stage["deps"]), made_from, libraries])
