"""Presets are valid overrides, written in the grammar that DVC reads back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import to_hydra_overrides
from subprocess_utils import run

from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.errors import UserError
from coma_gen.workspace.presets import (
    format_flags,
    merge_settings,
    preset_flags,
    read_preset,
    require_committed_params,
)

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "presets").mkdir()
    return tmp_path


def as_dvc_reads(flags: list[str]) -> dict[str, Any]:
    """key -> value, parsed by what `dvc exp run -S` itself parses with."""
    assert flags[::2] == ["-S"] * (len(flags) // 2)
    return {override.key_or_group: override.value() for override in to_hydra_overrides(flags[1::2])}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_valid_and_comes_through_dvc_unchanged(name: str) -> None:
    preset = read_preset(ROOT, name)
    expected = {f"{section}.{key}": value for section, keys in preset.items() for key, value in keys.items()}
    assert as_dvc_reads(preset_flags(ROOT, name)) == expected


def test_values_of_every_kind_come_through(checkout: Path) -> None:
    (checkout / "presets" / "p.yaml").write_text(
        "train: {learning_rate: 1e-5, augment: false, early_stopping: null, init_from: /a/b}\n"
        "model: {window_sizes: [16, 64], global_attention_layers: []}\n"
        "split: {composers_keep: ['Johann Sebastian Bach', 'Franz Schubert / Franz Liszt']}\n"
    )
    read = as_dvc_reads(preset_flags(checkout, "p"))
    assert read["train.learning_rate"] == 1e-5
    assert read["train.augment"] is False and read["train.early_stopping"] is None
    assert read["train.init_from"] == "/a/b"
    assert read["model.window_sizes"] == [16, 64] and read["model.global_attention_layers"] == []
    assert read["split.composers_keep"] == ["Johann Sebastian Bach", "Franz Schubert / Franz Liszt"]


@pytest.mark.parametrize("path", ["/a b/c", "/a, b", "/it's (new) {1}", '/x: y/#[é]="', "null", "1e3"])
def test_any_path_comes_through(path: str) -> None:
    assert as_dvc_reads(format_flags({"download": {"path": path}})) == {"download.path": path}


@pytest.mark.parametrize("text", ["", "train: 5\n", "[]\n"])
def test_wrong_params_under_a_preset_are_refused(checkout: Path, text: str) -> None:
    (checkout / "presets" / "p.yaml").write_text("train: {steps: 7}\n")
    (checkout / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml"):
        preset_flags(checkout, "p")


def test_a_preset_stands_on_another(checkout: Path) -> None:
    def write(name: str, text: str) -> None:
        (checkout / "presets" / f"{name}.yaml").write_text(text)

    write("ground", "train: {steps: 70, learning_rate: 1e-5}\nmodel: {dim: 64}\n")
    write("middle", "preset: ground\ntrain: {steps: 80}\n")
    write("top", "preset: middle\nmodel: {dim: 32}\nshard: {transpose: 2}\n")
    ground = read_preset(checkout, "ground")
    changes = {"train": {"steps": 80}}, {"model": {"dim": 32}, "shard": {"transpose": 2}}
    assert read_preset(checkout, "top") == merge_settings(ground, *changes)
    assert ground == read_yaml(checkout / "presets" / "ground.yaml")
    write("ground", "preset: top\n")
    with pytest.raises(UserError, match=r"presets/ground\.yaml: preset: must name another preset.*got top"):
        read_preset(checkout, "top")
    for wrong in ("[top]", "null", "ground"):
        write("ground", f"preset: {wrong}\n")
        with pytest.raises(UserError, match=r"presets/ground\.yaml: preset: must name another preset"):
            read_preset(checkout, "top")
    write("ground", "preset: ../params\n")
    with pytest.raises(UserError, match=r"preset '\.\./params': must be a file in presets/"):
        read_preset(checkout, "top")
    write("middle", "preset: nothing\n")
    with pytest.raises(UserError, match="preset 'nothing': must be a file"):
        read_preset(checkout, "top")


def test_unknown_and_wrong_presets_are_refused(checkout: Path) -> None:
    (checkout / "presets" / "bad.yaml").write_text("train: {stepps: 3}\nmodel: {head_dim: 31}\n")
    with pytest.raises(UserError, match=r"There are: bad"):
        preset_flags(checkout, "none")
    with pytest.raises(
        UserError, match=r"(?s)presets/bad\.yaml.*stepps.*did you mean|stepps.*Did you mean 'steps'"
    ):
        preset_flags(checkout, "bad")


def test_a_preset_stands_on_the_committed_params(checkout: Path) -> None:
    """What another experiment left behind is named, what the preset sets itself is not."""
    preset = {"train": {"steps": 7}}
    with pytest.raises(UserError, match=r"params\.yaml: must be committed"):
        require_committed_params(checkout, "presets/p.yaml", preset)
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "begin"]):
        run(checkout, "git", "-c", "user.name=a", "-c", "user.email=a@b", *words)
    require_committed_params(checkout, "presets/p.yaml", preset)
    path = checkout / "params.yaml"
    committed = path.read_text()
    path.write_text(committed.replace("  steps: 900", "  steps: 8"))
    require_committed_params(checkout, "presets/p.yaml", preset)
    path.write_text(committed.replace("device: cpu ", "device: cuda ").replace("  steps: 900", "  steps: 8"))
    with pytest.raises(UserError, match=r"where presets/p\.yaml says nothing, got runtime\.device\. `git"):
        require_committed_params(checkout, "presets/p.yaml", preset)
    path.write_text("")
    run(checkout, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-a", "-m", "nothing")
    path.write_text(committed)
    with pytest.raises(UserError, match=r"got runtime\.threads, runtime\.pin_cpu"):
        require_committed_params(checkout, "presets/p.yaml", preset)
