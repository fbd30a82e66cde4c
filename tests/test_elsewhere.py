"""Training on a machine with only the code, the shards and the tokenizer: no git, no MIDI files, and no
packages that only other stages need.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from checkout import DVC, ROOT, Built, copy_of, dvc
from subprocess_utils import run

from coma_gen.model.serialization import load_model
from coma_gen.workspace.fingerprint import training_digest

pytestmark = pytest.mark.slow
CARRIED = ("params.yaml", "dvc.yaml", "constraints.txt", "stages", "src", "data/shards", "data/tokenizer")
BROUGHT_BACK = ("data/model", "metrics/train.json", "metrics/curve.csv")
OF_OTHER_STAGES = {"dvc", "miditok", "mlflow", "symusic", "tokenizers"}
HIDING = f"""
import importlib.abc, socket, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OF_OTHER_STAGES!r}:
            raise ModuleNotFoundError(f"no module named {{name}} here", name=name)

def unreachable(*_):
    raise OSError("there is no network here")

sys.meta_path.insert(0, Hidden())
socket.create_connection = socket.getaddrinfo = unreachable
"""
"""What Python runs first on a machine without the packages of other stages, and without a network."""


def carry(source: Path, target: Path, names: tuple[str, ...]) -> Path:
    """Copies what stands under these names in place of what the target has there."""
    for name in names:
        there = target / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.rmtree(there, ignore_errors=True)
            shutil.copytree(source / name, there)
        else:
            there.unlink(missing_ok=True)
            shutil.copyfile(source / name, there)
    return target


def imported(output: str) -> set[str]:
    """The packages that Python says it imported."""
    modules = (line.rpartition("|")[2] for line in output.splitlines() if line.startswith("import time:"))
    return {name.strip().partition(".")[0] for name in modules}


def weights(checkout: Path) -> str:
    return json.loads((checkout / "data" / "model" / "manifest.json").read_text())["digest"]


@pytest.fixture(scope="module")
def other(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The machine that only trains, when it has."""
    folder = carry(built.folder, tmp_path_factory.mktemp("elsewhere") / "work", CARRIED)
    (folder.parent / "sitecustomize.py").write_text(HIDING)  # which the ranks run, too
    hidden = ("env", f"PYTHONPATH={folder.parent}")
    output = run(folder, *hidden, sys.executable, "-X", "importtime", "stages/train.py")
    assert "torch" in imported(output) and not imported(output) & OF_OTHER_STAGES
    assert "No live MLflow logging (no data/corpus here)" in output
    return folder


def test_the_weights_are_the_same(built: Built, other: Path) -> None:
    assert weights(other) == weights(built.folder)


def test_another_machine_goes_on_from_its_checkpoint(other: Path, tmp_path: Path) -> None:
    third = carry(other, tmp_path / "work", (*CARRIED, ".resume"))
    folder = third / ".resume" / training_digest(third)
    *_, before, last = sorted((folder / "checkpoints").glob("step-*"))
    shutil.rmtree(last)
    written = {path: path.stat().st_mtime_ns for path in before.iterdir()}
    run(third, sys.executable, "stages/train.py")
    assert last.exists() and {path: path.stat().st_mtime_ns for path in before.iterdir()} == written
    assert weights(third) == weights(other)
    assert (third / "metrics" / "curve.csv").read_bytes() == (other / "metrics" / "curve.csv").read_bytes()


def test_the_best_weights_alone_are_carried_home(built: Built, other: Path, tmp_path: Path) -> None:
    home = copy_of(built.folder, tmp_path / "checkout")
    shutil.rmtree(home / "data" / "model")
    carrying = ("env", f"PYTHONPATH={other / 'src'}", sys.executable, "-m", "coma_gen.workspace.carry")
    run(other, *carrying, "pack", str(tmp_path / "parcel"), "--part-mb", "0.5")
    assert max(path.stat().st_size for path in (tmp_path / "parcel").iterdir()) <= 2**19
    run(home, *carrying, "unpack", str(tmp_path / "parcel"))
    run(home, *DVC, "commit", "--force", "train")
    assert "train" not in dvc(home, "status", "train")
    mine, theirs = (load_model(folder / "data" / "model").model.state_dict() for folder in (home, other))
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_dvc_takes_what_is_brought_back_and_goes_on(built: Built, other: Path, tmp_path: Path) -> None:
    home = copy_of(built.folder, tmp_path / "checkout")
    for name in ("dvc.lock", *BROUGHT_BACK[1:]):
        (home / name).unlink()
    shutil.rmtree(home / "data" / "model")
    dvc(home, "repro", "shard")
    shutil.rmtree(home / ".dvc" / "cache" / "runs")  # or train would come from there
    carry(other, home, BROUGHT_BACK)
    run(home, *DVC, "commit", "--force", "train")
    assert "train" not in dvc(home, "status", "train")
    output = dvc(home, "repro", "evaluate")
    assert "Stage 'train' didn't change" in output and weights(home) == weights(other)


def test_the_page_says_what_is_carried() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert f"tar cz {' '.join(CARRIED)} > job.tgz" in page
    assert f"tar cz {' '.join(BROUGHT_BACK)} > result.tgz" in page
