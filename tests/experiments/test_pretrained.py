"""The pretrained weights have the scores of their model card, and are the default without a trained model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from coma_gen.core.artifact import MANIFEST
from coma_gen.core.errors import UserError
from coma_gen.experiments import pretrained
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.model.device import deterministic
from coma_gen.model.serialization import load_model
from coma_gen.tracking.model_store import named_model
from coma_gen.workspace import pretrained as installation
from coma_gen.workspace.paths import Workspace

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "pretrained"


def test_it_scores_what_its_card_says() -> None:
    figures = json.loads((FOLDER / "figures.json").read_text())
    generator = MusicGenerator.load(FOLDER / "model")
    assert generator.loaded.manifest.digest == figures["model"]
    with deterministic(1):
        scores = pretrained.score_prompts(generator, ROOT / "examples" / "prompts")
    assert len(scores) == 3 and scores == pytest.approx(figures["prompts"], abs=1e-3)
    assert pretrained.card_table(figures) in (FOLDER / "README.md").read_text()


def test_it_is_small_and_holds_its_best_weights_alone() -> None:
    files = {path.name: path.stat().st_size for path in (FOLDER / "model").iterdir() if path.is_file()}
    assert set(files) == {"best.safetensors", "config.json", MANIFEST}
    assert files["best.safetensors"] <= pretrained.MAX_BYTES


def test_what_was_trained_comes_first_and_it_otherwise(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").touch()
    workspace = Workspace.around(tmp_path)
    for named, where in ((None, workspace), ("pretrained", workspace), (None, None), ("pretrained", None)):
        with named_model(named, where) as folder:
            assert folder == FOLDER / "model"
    shutil.copytree(FOLDER / "model", tmp_path / "data" / "model")
    with named_model(None, workspace) as folder:
        assert folder == tmp_path / "data" / "model"
    with named_model("pretrained", workspace) as folder:
        assert folder == FOLDER / "model"
    (tmp_path / "data" / "model" / MANIFEST).unlink()
    with pytest.raises(UserError, match=f"a folder without {MANIFEST}"), named_model(None, workspace):
        pass


def test_where_it_was_left_out_the_way_on_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "CANDIDATES", (tmp_path / "nowhere",))
    for named in (None, "pretrained"):
        with pytest.raises(UserError, match=r"--model.*must be named"), named_model(named, None):
            pass
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").touch()
    with pytest.raises(UserError, match="dvc repro"), named_model(None, Workspace.around(tmp_path)):
        pass


def test_large_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER / "model", tmp_path / "data" / "model")
    monkeypatch.setattr(pretrained, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"must have weights of at most 1,000 bytes in float16"):
        pretrained.write_pretrained(Workspace.here(tmp_path))
    assert not (tmp_path / "pretrained").exists()


def test_weights_too_large_for_a_clone_are_rounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER / "model", tmp_path / "data" / "model")
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    shutil.copytree(ROOT / "examples" / "prompts", tmp_path / "examples" / "prompts")
    (tmp_path / "pretrained").mkdir()
    shutil.copy(FOLDER / "README.md", tmp_path / "pretrained")
    monkeypatch.setattr(pretrained, "head", lambda _: "c" * 40)
    trained = load_model(FOLDER / "model").model.state_dict()
    rounded = {name: tensor.half().float() for name, tensor in trained.items()}
    size = sum(4 * tensor.numel() for tensor in trained.values())
    monkeypatch.setattr(pretrained, "MAX_BYTES", int(0.6 * size))
    with deterministic(1):
        figures = pretrained.write_pretrained(Workspace.here(tmp_path))
    stored = tmp_path / "pretrained" / "model"
    assert (stored / "best.safetensors").stat().st_size < 0.6 * size
    found = load_model(stored).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in rounded.items())
    assert figures["stored_as"] == "float16" and figures["rounding"] < 0.01
    assert "| weights are stored in | float16, which moves" in (tmp_path / "pretrained/README.md").read_text()
