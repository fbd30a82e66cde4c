"""A model is packed in parts and unpacked byte for byte; mismatched parts are rejected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coma_gen.core.artifact import read_manifest, verify_artifact, write_manifest
from coma_gen.core.errors import UserError
from coma_gen.core.io import atomic_dir
from coma_gen.workspace.carry import main, pack, unpack
from coma_gen.workspace.paths import Workspace

WEIGHTS = bytes(range(256)) * 10
ROOT = Path(__file__).resolve().parents[2]


def sealed(folder: Path, kind: str, made_from: dict[str, str], **files: bytes) -> str:
    with atomic_dir(folder) as building:
        for name, content in files.items():
            (building / name.replace("_", ".")).write_bytes(content)
        return write_manifest(building, kind=kind, made_from=made_from, settings={}).digest


@pytest.fixture
def there(tmp_path: Path) -> Workspace:
    """A machine that has trained."""
    root = tmp_path / "there"
    (root / "metrics").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", root)
    origin = {
        kind: sealed(root / "data" / kind, kind, {}, ids=kind.encode()) for kind in ("shards", "tokenizer")
    }
    files = {"best_safetensors": WEIGHTS, "last_safetensors": b"last", "config_json": b'{"vocab_size": 9}'}
    sealed(root / "data" / "model", "model", origin, **files)
    (root / "metrics" / "train.json").write_text('{"steps": 7}\n')
    (root / "metrics" / "curve.csv").write_text("step,train_loss\n7,2.5\n")
    return Workspace.here(root)


@pytest.fixture
def home(there: Workspace, tmp_path: Path) -> Workspace:
    """The checkout that sent it out."""
    root = tmp_path / "home"
    shutil.copytree(there.root, root)
    shutil.rmtree(root / "data" / "model")
    shutil.rmtree(root / "metrics")
    return Workspace.here(root)


def test_the_best_weights_alone_come_home_byte_for_byte(
    there: Workspace, home: Workspace, tmp_path: Path
) -> None:
    files = pack(there, tmp_path / "parcel", part_bytes=1000)
    assert [path.name for path in files] == ["trained.json", "weights.000", "weights.001", "weights.002"]
    assert [path.stat().st_size for path in files[1:]] == [1000, 1000, 560]
    assert sorted(path.name for path in (tmp_path / "parcel").iterdir()) == sorted(p.name for p in files)
    digest = unpack(home, tmp_path / "parcel")
    model = home.data("model")
    assert verify_artifact(model, kind="model").digest == digest
    assert (model / "best.safetensors").read_bytes() == WEIGHTS and not (model / "last.safetensors").exists()
    assert (model / "tokenizer" / "ids").read_bytes() == b"tokenizer"
    assert (
        read_manifest(model, kind="model").made_from
        == read_manifest(there.data("model"), kind="model").made_from
    )
    assert json.loads(home.metrics("train.json").read_text()) == {"steps": 7}
    assert home.metrics("curve.csv").read_bytes() == there.metrics("curve.csv").read_bytes()


def without_a_part(parcel: Path, _: Workspace) -> str:
    (parcel / "weights.001").unlink()
    return "weights.001: must be there"


def with_a_changed_part(parcel: Path, _: Workspace) -> str:
    (parcel / "weights.000").write_bytes(b"other")
    return "weights.000: must be as it was packed"


def with_other_shards(_: Path, home: Workspace) -> str:
    sealed(home.data("shards"), "shards", {}, ids=b"others")
    return "shards: must be the shards that were trained on"


def with_other_params(_: Path, home: Workspace) -> str:
    home.params.write_text(home.params.read_text().replace("  dim: 128 ", "  dim: 64 "))
    return "model.dim: must be 128, as in the training, got 64"


WRONG = (without_a_part, with_a_changed_part, with_other_shards, with_other_params)


@pytest.mark.parametrize("spoil", WRONG)
def test_what_does_not_belong_together_is_refused(
    spoil: Callable[[Path, Workspace], str], there: Workspace, home: Workspace, tmp_path: Path
) -> None:
    pack(there, tmp_path / "parcel", part_bytes=1000)
    expected = spoil(tmp_path / "parcel", home)
    with pytest.raises(UserError) as caught:
        unpack(home, tmp_path / "parcel")
    assert expected in str(caught.value)
    assert not home.data("model").exists() and not home.metrics("train.json").exists()


def test_how_fast_it_was_trained_makes_no_difference(
    there: Workspace, home: Workspace, tmp_path: Path
) -> None:
    there.params.write_text(there.params.read_text().replace("compile: false", "compile: true"))
    pack(there, tmp_path / "parcel", part_bytes=10**6)
    unpack(home, tmp_path / "parcel")


def test_an_unfinished_training_and_a_foreign_file_are_named(
    home: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.root)
    with pytest.raises(SystemExit, match=r"data/model: must be there to be packed.*max_minutes"):
        main(["pack", str(tmp_path / "parcel")])
    assert not (tmp_path / "parcel").exists()
    (tmp_path / "trained.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"trained\.json: must be what `pack` wrote"):
        main(["unpack", str(tmp_path)])
