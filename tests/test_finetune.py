"""Fine-tuning a trained model on one's own music: commands, errors, and one complete run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from checkout import ROOT, Built, coma_gen, copy_of, stages_run
from midi_builder import note, program, smf, tempo, track
from small_models import SCALE, written_model

from coma_gen.cli.finetune import finetune_flags, keep, unreadable_files
from coma_gen.cli.main import main
from coma_gen.config.load import load_params
from coma_gen.core.artifact import read_manifest, verify_artifact
from coma_gen.core.io import read_json
from coma_gen.midi.io import midi_bytes
from coma_gen.workspace.paths import Workspace


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `coma-gen` takes for a checkout."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "presets", checkout / "presets")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, checkout)
    (checkout / "songs").mkdir()
    return checkout


def test_the_flags_name_the_music_the_model_and_its_shape(checkout: Path, tmp_path: Path) -> None:
    workspace, model = Workspace.here(checkout), written_model(tmp_path, window_sizes=(8, 512))
    copied = keep(workspace, model, verify_artifact(model, kind="model"))
    assert copied.is_relative_to(checkout / ".downloads")
    assert read_manifest(copied, kind="model").digest == read_manifest(model, kind="model").digest
    assert keep(workspace, model, verify_artifact(model, kind="model")) == copied
    flags = finetune_flags(workspace, checkout / "songs", copied)
    given = dict(flag.split("=", 1) for flag in flags[1::2])
    assert given["train.init_from"] == str(copied) and given["download.path"] == str(checkout / "songs")
    assert (given["download.corpus"], given["train.seq_len"]) == ("folder", "512")
    shape = {name: given[f"model.{name}"] for name in ("dim", "window_sizes", "attention_position")}
    assert shape == {"dim": "16", "window_sizes": "[8, 512]", "attention_position": "xpos"}


def test_what_cannot_be_gone_on_from_is_refused_before_anything_runs(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, other = written_model(tmp_path / "p", vocab_size=600), written_model(tmp_path / "o", velocities=31)
    (checkout / "file").touch()
    monkeypatch.chdir(checkout)
    monkeypatch.setattr("coma_gen.workspace.pretrained.CANDIDATES", ())
    for words, reason in (
        (("nowhere",), "nowhere: must be a folder of MIDI files, got nothing there"),
        (("file",), "file: must be a folder of MIDI files, got a file"),
        (("songs",), "must be a model's folder"),
        (("songs", "--model", str(pairs)), "--model: must be a model without byte-pair encoding"),
        (("songs", "--model", str(other)), "params.yaml: tokenizer: must match the model's tokenizer"),
    ):
        with pytest.raises(SystemExit, match=reason):
            main(["finetune", *words])
    (checkout / "deep").mkdir()
    monkeypatch.chdir(checkout / "deep")
    with pytest.raises(SystemExit, match=f"{checkout}/deep/songs: must be a folder of MIDI files"):
        main(["finetune", "songs"])
    with pytest.raises(SystemExit, match="must be a model's folder"):
        main(["finetune", "../songs"])
    assert not (checkout / ".downloads").exists()


def test_what_could_not_be_read_is_told_with_its_reason(checkout: Path) -> None:
    (checkout / "metrics").mkdir()
    found = {"performances": 1, "reasons": {"must be whole": 1}, "files": ["a.mid: must be whole, got half"]}
    (checkout / "metrics" / "split.json").write_text(json.dumps({"unreadable": found}))
    told = ["skipped 1 unreadable files:", "  a.mid: must be whole, got half"]
    assert list(unreadable_files(Workspace.here(checkout))) == told
    found["files"] = []
    (checkout / "metrics" / "split.json").write_text(json.dumps({"unreadable": found}))
    assert list(unreadable_files(Workspace.here(checkout))) == []


def songs(folder: Path) -> None:
    """Files as other programs write them: of format 0 and 1, with other tempi and programs, and drums."""
    folder.mkdir()
    for number in range(8):
        shifted = SCALE.shifted(0.01 * number)
        (folder / f"ours-{number}.mid").write_bytes(midi_bytes(shifted))
        notes = [
            event for beat in range(12) for event in note(240 * beat, 240 * beat + 200, 50 + beat + number)
        ]
        one = track(tempo(0, 400_000 + number), program(0, 40), *notes, *note(0, 90, 38, channel=9))
        (folder / f"format-0-{number}.mid").write_bytes(smf(one, division=240, form=0))
        many = smf(track(tempo(0, 700_000 + number)), track(*notes), track(*note(0, 960, 36)), division=120)
        (folder / f"format-1-{number}.MID").write_bytes(many)


@pytest.mark.slow
def test_a_folder_of_midi_from_the_model_of_the_last_run_on(built: Built, tmp_path: Path) -> None:
    checkout = copy_of(built.folder, tmp_path / "checkout")
    start = read_manifest(checkout / "data" / "model", kind="model").digest
    songs(tmp_path / "songs")
    (tmp_path / "songs" / "broken.mid").write_bytes(b"no music")
    brief = ("-S", "train.steps=6", "-S", "train.warmup_steps=1", "-S", "train.validate_every=3")
    status, output = coma_gen(checkout, "finetune", str(tmp_path / "songs"), *brief, "train")
    assert status == 0, output
    assert stages_run(output) == ["check", "download", "split", "fit_tokenizer", "shard", "train"]
    assert read_manifest(checkout / "data" / "model", kind="model").made_from["init_from"] == start
    assert read_json(checkout / "metrics" / "download.json")["performances"] == 25
    assert "broken.mid: must be a MIDI file, which begins with 'MThd', got 'no m'" in output
    params = load_params(checkout / "params.yaml")
    assert params.train.steps == 6 and params.train.learning_rate == 0.001
