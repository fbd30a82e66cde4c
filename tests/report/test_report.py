"""The report stage: from the folders that the other stages write to one page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coma_gen.config.schema import ReportParams
from coma_gen.core.errors import UserError
from coma_gen.core.io import write_json
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from coma_gen.report.stage import write_report

EVALUATED = {
    "performances": [
        {
            "split": "test",
            "composer": "Frédéric Chopin",
            "title": "Étude, Op. 10",
            "notes": 9,
            "bits_per_note_10ms": 22.75,
        }
    ],
    "composers": [
        {"split": "test", "composer": "Chopin", "performances": 1, "notes": 9, "bits_per_note_10ms": 22.75}
    ],
    "windows": [
        {"layer": 1, "window": 32, "share": 0.125},
        {"layer": 1, "window": None, "share": 0.875},
        {"layer": 2, "window": 32, "share": 1.0},
    ],
    "contexts": [
        {"split": "test", "protocol": "carried", "context_to": 64, "tokens": 999, "nll_per_token": 4.5}
    ],
}


@pytest.fixture
def folders(
    tmp_path: Path, etude: Callable[..., Notes], metrics: Callable[..., dict[str, Any]]
) -> dict[str, Path]:
    """What the stages before it write."""
    names = ("metrics", "samples", "evaluation")
    found = {name: tmp_path / name for name in names} | {"destination": tmp_path / "data" / "report"}
    for name in names:
        found[name].mkdir()
    figures = metrics()
    figures["split"]["unreadable"] = {
        "performances": 3,
        "reasons": {"must have notes": 3},
        "files": ["a.mid"],
    }
    figures["sample"] = {
        "samples": 2,
        "illegal_probability": 0.0489,
        "invalid": 0,
        "music": {"polyphony": {"mean": {"samples": 2.5, "train": 3.25, "test": 3.5}}},
    }
    for stage, value in figures.items():
        write_json(found["metrics"] / f"{stage}.json", value)
    (found["metrics"] / "curve.csv").write_text("step,train_loss,validation_nll\n10,5.5,\n20,4.5,4.25\n")
    for name, rows in EVALUATED.items():
        pd.DataFrame(rows).to_parquet(found["evaluation"] / f"{name}.parquet")
    samples = [{"name": "unprompted-01", "notes": 3, "prompt_seconds": None}]
    samples.append(
        {"name": "continued-01", "prompt_seconds": 1.5, "composer": "Clara Schumann", "title": "Soirée"}
    )
    for entry in samples:
        (found["samples"] / f"{entry['name']}.mid").write_bytes(midi_bytes(etude(2)))
    write_json(found["samples"] / "samples.json", {"settings": {"temperature": 0.875}, "samples": samples})
    return found


def test_the_page_shows_what_the_stages_wrote(folders: dict[str, Path]) -> None:
    write_report(ReportParams(audio=True, max_samples=8), **folders, model_digest="c0ffee")
    text = (folders["destination"] / "index.html").read_text(encoding="utf-8")
    wanted = [
        "continues 1.5 s of Clara Schumann, Soirée",
        "unprompted · ",
        "0.875",
        "Frédéric Chopin, Étude, Op. 10",
    ]
    wanted += [
        "22.75",
        "20.83",
        "of the probability is on invalid tokens",
        "3.25",
        "Unreadable files: 3; must have notes: 3.",
        "maestro-mini",
        "layer 1, 32 tokens: 12%; layer 1, all tokens: 88%; layer 2, 32 tokens: 100%",
        "tags.`digest.model` = 'c0ffee'",
    ]
    assert [piece for piece in wanted if piece not in text] == []
    names = {path.name for path in folders["destination"].iterdir()}
    assert {"unprompted-01.png", "unprompted-01.flac", "continued-01.png", "learning-curve.svg"} <= names
    assert {"bits-by-composer.svg", "nll-by-context.svg"} <= names


def test_nothing_there_is_still_a_page(tmp_path: Path) -> None:
    absent = {name: tmp_path / name for name in ("metrics", "samples", "evaluation", "destination")}
    write_report(ReportParams(audio=True, max_samples=8), **absent)
    assert [path.name for path in absent["destination"].iterdir()] == ["index.html"]


def test_without_audio(folders: dict[str, Path]) -> None:
    write_report(ReportParams(audio=False, max_samples=8), **folders)
    assert "<audio" not in (folders["destination"] / "index.html").read_text(encoding="utf-8")
    assert not list(folders["destination"].glob("*.flac"))


def test_more_samples_than_the_page_shows_are_counted(folders: dict[str, Path]) -> None:
    path = folders["samples"] / "samples.json"
    listed = json.loads(path.read_text())
    nothing, continued = listed["samples"]
    listed["samples"] = [nothing, {"name": "unprompted-02"}, {"name": "unprompted-03"}, continued]
    write_json(path, listed)
    for name in ("unprompted-02", "unprompted-03"):
        shutil.copyfile(folders["samples"] / "unprompted-01.mid", folders["samples"] / f"{name}.mid")
    write_report(ReportParams(audio=False, max_samples=2), **folders)
    pictures = {picture.stem for picture in folders["destination"].glob("*.png")}
    assert pictures == {"unprompted-01", "unprompted-02", "continued-01"}
    remark = "3 of 4 samples; data/samples contains all of them."
    assert remark in (folders["destination"] / "index.html").read_text(encoding="utf-8")
    write_report(ReportParams(audio=False, max_samples=3), **folders)
    assert " of 4 samples" not in (folders["destination"] / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ['{"samples": [{}]}', "[1]", '{"settings": {}, "samples": [3]}', "{"])
def test_a_damaged_list_is_named(folders: dict[str, Path], damage: str) -> None:
    (folders["samples"] / "samples.json").write_text(damage)
    with pytest.raises(UserError, match=r"samples\.json"):
        write_report(ReportParams(audio=False, max_samples=8), **folders)
    assert not folders["destination"].exists()


def test_a_lost_sample_is_named(folders: dict[str, Path]) -> None:
    (folders["samples"] / "continued-01.mid").unlink()
    with pytest.raises(UserError, match=r"continued-01\.mid"):
        write_report(ReportParams(audio=False, max_samples=8), **folders)
    assert json.loads((folders["samples"] / "samples.json").read_text())["samples"]


def test_a_damaged_table_is_named(folders: dict[str, Path]) -> None:
    (folders["evaluation"] / "composers.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(UserError, match=r"composers\.parquet"):
        write_report(ReportParams(audio=False, max_samples=8), **folders)
