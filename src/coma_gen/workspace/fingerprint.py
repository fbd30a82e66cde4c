"""Digests of the inputs of a run, which identify it before it starts.

The digest of an experiment (all params, all code, the corpus) identifies its MLflow run. The digests of
training and sharding (only what weights or shards depend on) name their resume folders. The code of a stage
is what its dependencies in dvc.yaml list.
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
"""Settings (section, key) that may change when training is resumed."""
LIBRARIES = ("torch", "numpy")
"""Training is not resumed with other versions of these."""
ENCODERS = ("miditok", "numpy", "pyarrow", "symusic", "tokenizers")
"""Sharding is not resumed with other versions of these."""
CODE = ("src/coma_gen/", "stages/")
"""Prefixes of code dependencies; `src` as a whole, which `track` lists, is not one."""
PASSING = (".pyc", ".partial")
"""Temporary files beside code, which .dvcignore excludes for DVC."""


def _digest(content: Any) -> str:
    return sha256_bytes(json.dumps(content, sort_keys=True).encode("utf-8"))


def _digest_code(root: Path, dependencies: Iterable[Any]) -> dict[str, str]:
    """Maps path -> digest of every code file among the dependencies of a stage, including packages."""
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
    """Computes the digest of all params, the code of all stages and the corpus; known before training."""
    stages = read_yaml(root / "dvc.yaml")["stages"]
    code = _digest_code(root, (name for stage in stages.values() for name in stage.get("deps", ())))
    corpus = read_manifest(root / "data" / "corpus", kind="corpus").digest
    return _digest([read_yaml(root / "params.yaml"), code, corpus])


def training_digest(root: Path) -> str:
    """Computes the digest of everything the weights depend on: params and code of the train stage, the
    shards, the initial model, the processor architecture and library versions.
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
    return _digest([chosen, _digest_code(root, stage["deps"]), shards, origin, libraries])


def sharding_digest(root: Path) -> str:
    """Computes the digest of everything the shards depend on: params and code of the shard stage, the split
    (and thus the corpus), the tokenizer, and library versions.
    """
    stage = read_yaml(root / "dvc.yaml")["stages"]["shard"]
    made_from = [read_manifest(root / "data" / kind, kind=kind).digest for kind in ("split", "tokenizer")]
    libraries = [version(name) for name in ENCODERS]
    params = read_yaml(root / "params.yaml")["shard"]
    return _digest([params, _digest_code(root, stage["deps"]), made_from, libraries])
