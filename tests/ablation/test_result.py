"""Finished runs side by side: hand-made figures come out where they belong; what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coma_gen.ablation.result import Checkout, finished, markdown
from coma_gen.cli import main
from coma_gen.errors import UserError

LOCK = "stages: {train: {outs: [{path: data/model, md5: 0123456789abcdef.dir}, {path: x, md5: y}]}}\n"


def score(bits: float, *, notes: int = 4) -> dict[str, Any]:
    low, high = bits - 1, bits + 2
    nats = {"nll_per_token": bits / 10, "performances": 2, "notes": notes}
    return {
        "bits_per_note_10ms": bits,
        "bits_per_note_10ms_low": low,
        "bits_per_note_10ms_high": high,
        **nats,
    }


@dataclass
class Made:
    """A run with bits per note of 10 on one composition of a note, and of `dear` on one of three notes."""

    dear: float = 20.0
    began_at: str = "c0ffee" * 6
    lock: str = LOCK
    notes: tuple[int, int] = (1, 3)
    scored_notes: int = 4
    files: dict[str, str] = field(default_factory=dict)

    def text(self, path: str) -> str:
        return {"dvc.lock": self.lock, "params.yaml": "baseline: {kneser_ney_order: 3}"}[path]

    def metrics(self, stage: str) -> dict[str, Any]:
        models = {"uniform": 30.0, "unigram": 28.0, "bigram": 25.0, "kneser_ney": 24.0}
        overlap = {"with_test": self.dear / 40, "of_real": 0.75, "of_real_low": 0.5}
        passages = {"pieces": 6, "mean_notes": 5.25, "longest_notes": 9}
        own = (10 + 3 * self.dear) / 4
        found: dict[str, dict[str, Any]] = {
            "train": {"parameters": 1_234_567, "tokens": 7_000},
            "baseline": {
                split: {name: score(bits) for name, bits in models.items()}
                for split in ("validation", "test")
            },
            "evaluate": {"validation": score(own + 1), "test": score(own, notes=self.scored_notes)},
            "sample": {
                "samples": 6,
                "excerpts": {"seconds": 30.0, "train": 24, "test": 11},
                "music": {"pitch_range": {"overlap": overlap}},
                "memorisation": {"samples": passages, "test": {**passages, "mean_notes": 4.5}},
            },
        }
        return found[stage]

    def performances(self) -> pd.DataFrame:
        names = ["b.midi", "a.midi"]
        bits = np.array([10.0, self.dear]) * self.notes
        test = pd.DataFrame(
            {
                "split": "test",
                "midi_filename": names,
                "composer": "C",
                "title": names,
                "notes": self.notes,
                "nats": (bits - 1) * np.log(2),
                "resolution_bits": 1.0,
            }
        )
        return pd.concat([test.assign(split="validation", nats=1e9), test])


def rows(text: str) -> dict[str, list[list[str]]]:
    """First cell -> the other cells of its rows, in their order."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("|"):
            first, *others = (cell.strip() for cell in line.strip("|").split("|"))
            found.setdefault(first, []).append(others)
    return found


def test_every_figure_is_where_it_belongs() -> None:
    text = markdown([finished("ours", Made()), finished("plain", Made(dear=24.0))])
    table = rows(text)
    assert table["bigram"] == [["", "", "25.00", "25.00 [24.00, 27.00]", "2.500"]]
    assert table["Kneser-Ney 3-gram"][0][2] == "24.00"
    assert table["ours"][0] == ["1,234,567", "7,000", "18.50", "17.50 [16.50, 19.50]", "1.750"]
    assert table["plain"][0][2:] == ["21.50", "20.50 [19.50, 22.50]", "2.050"]
    assert table["pitch range"] == [["0.75 (0.50)", "0.50", "0.60"]]
    assert table["test excerpts"] == [["6", "4.5", "9"]]
    assert table["ours"][1] == ["6", "5.2", "9"]
    digest = hashlib.sha256(LOCK.encode()).hexdigest()[:12]
    assert table["plain"][2] == ["`c0ffeec0ffee`", f"`{digest}`", "`0123456789ab`"]
    assert "6 samples, 24 and 11 excerpts of 30 s." in text


def test_the_difference_is_of_the_same_compositions() -> None:
    """Four bits more on three notes of four; draws hold the one composition, the other, or both."""
    text = markdown([finished("ours", Made()), finished("plain", Made(dear=24.0))])
    assert "plain less ours, test: +3.00 [+0.00, +4.00] bits per note." in text
    assert "less" not in markdown([finished("ours", Made())]).replace("Less is better", "").replace(
        "only less", ""
    )


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Made(lock="stages: {}"), "second: dvc.lock: must hold a trained model"),
        (Made(scored_notes=5), "second: metrics: must be of one run"),
        (Made(notes=(1, 4)), "second: must be scored on the same test performances as first"),
    ],
)
def test_what_does_not_fit_is_refused(made: Made, words: str) -> None:
    with pytest.raises(UserError, match=words):
        markdown([finished("first", Made()), finished("second", made)])


def test_a_checkout_is_read_as_it_lies(tmp_path: Path) -> None:
    made, kept = Made(), Checkout(tmp_path, "abc")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "data" / "evaluation").mkdir(parents=True)
    for name in ("dvc.lock", "params.yaml"):
        with pytest.raises(UserError, match=f"{name}: must be there"):
            kept.text(name)
        (tmp_path / name).write_text(made.text(name))
    for stage in ("train", "baseline", "evaluate", "sample"):
        (tmp_path / "metrics" / f"{stage}.json").write_text(json.dumps(made.metrics(stage)))
    with pytest.raises(UserError, match=r"performances\.parquet: must be there"):
        finished("ours", kept)
    made.performances().to_parquet(tmp_path / "data" / "evaluation" / "performances.parquet")
    expected = replace(made, began_at="abc")
    assert markdown([finished("ours", kept)]) == markdown([finished("ours", expected)])


def test_an_unknown_experiment_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    with pytest.raises(SystemExit, match="experiment 'never-ran': must be one of DVC"):
        main(["result", "never-ran"])
    assert capsys.readouterr().out == ""
