"""Digests that name a run: what it is made of, known before it starts.

The experiment's (all params, all code, the corpus) is what MLflow's run is found by; the training's and the
sharding's (only what the weights, or the shards, depend on) name their resume folders. All read the list of
code files from dvc.yaml, where each stage says what it runs.
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

SPEED_ONLY = (("runtime", "processes"), ("train", "compile"), ("train", "tensorboard"))
"""Settings (section, key) under whose other values a training may go on."""
LIBRARIES = ("torch", "numpy")
"""A checkpoint of other versions of these is not gone on from."""
ENCODERS = ("miditok", "numpy", "pyarrow", "symusic", "tokenizers")
"""Parts of shards that other versions of these wrote are not gone on from."""


def _digest(content: Any) -> str:
    return sha256_bytes(json.dumps(content, sort_keys=True).encode("utf-8"))


def _code(root: Path, dependencies: Iterable[Any]) -> dict[str, str]:
    names = sorted({str(name) for name in dependencies if str(name).endswith(".py")})
    return {name: sha256_file(root / name) for name in names}


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
