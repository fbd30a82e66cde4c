"""Code digests of a run cover exactly the code that dvc.yaml lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checkout import ROOT

from coma_gen.core.artifact import write_manifest
from coma_gen.workspace.fingerprint import experiment_digest, sharding_digest, training_digest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The code of the project, with artifacts that hold nothing."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for kind in ("corpus", "split", "tokenizer", "shards"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        write_manifest(tmp_path / "data" / kind, kind=kind, made_from={}, settings={})
    return tmp_path


def digests(root: Path) -> tuple[str, str, str]:
    return experiment_digest(root), training_digest(root), sharding_digest(root)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("src/coma_gen/core/io.py", (True, True, True)),
        ("src/coma_gen/training/loop.py", (True, True, False)),
        ("src/coma_gen/training/added.py", (True, True, False)),
        ("src/coma_gen/shards/windows.py", (True, True, False)),
        ("src/coma_gen/midi/sustain.py", (True, False, True)),
        ("src/coma_gen/report/report.css", (True, False, False)),
        ("stages/train.py", (True, True, False)),
        ("src/coma_gen/cli/main.py", (False, False, False)),
        ("src/coma_gen/training/__pycache__/loop.cpython-311.pyc", (False, False, False)),
        ("src/coma_gen/core/io.py.partial", (False, False, False)),
    ],
)
def test_an_edit_changes_the_digests_of_what_it_can_change(
    root: Path, name: str, changes: tuple[bool, bool, bool]
) -> None:
    before = digests(root)
    (root / name).parent.mkdir(exist_ok=True)
    with (root / name).open("a") as file:
        file.write("# changed\n")
    assert tuple(old != new for old, new in zip(before, digests(root), strict=True)) == changes
