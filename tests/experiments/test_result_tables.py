"""Tables of finished runs against hand-made figures; inconsistent runs are rejected."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from coma_gen.cli.main import main
from coma_gen.core.errors import UserError
from coma_gen.experiments.dvc_experiments import STAGES
from coma_gen.experiments.result_tables import SCORED, markdown, read_run
from coma_gen.experiments.run_files import Checkout, RunFiles


def score(bits: float, *, notes: int = 4) -> dict[str, Any]:
    low, high = bits - 1, bits + 2
    nats = {"nll_per_token": bits / 10, "performances": 2, "notes": notes}
    return {
        "bits_per_note_10ms": bits,
        "bits_per_note_10ms_low": low,
        "bits_per_note_10ms_high": high,
        **nats,
    }


def digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@dataclass
class Made:
    """A run with bits per note of 10 on one composition of a note, and of `dear` on one of three notes.

    Attributes:
        without: parts of metrics/sample.json that it lacks.
        files: in place of its own.
    """

    dear: float = 20.0
    began_at: str = "c0ffee" * 6
    pedal: str = "extend"
    seconds: float = 30.0
    titles: tuple[str, str] = ("b", "a")
    without: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)

    def text(self, path: str) -> str:
        if path in self.files:
            return self.files[path]
        if path == "params.yaml":
            return yaml.safe_dump({"baseline": {"kneser_ney_order": 3}, "tokenizer": {"pedal": self.pedal}})
        if path == "dvc.lock":
            return yaml.safe_dump({"stages": self.stages()})
        return json.dumps(self.metrics(Path(path).stem))

    def stages(self) -> dict[str, Any]:
        """As DVC's lock has them: each reads what the one before it made."""
        stages: dict[str, Any] = {}
        made: list[dict[str, str]] = []
        read = {"baseline": {"kneser_ney_order": 3}}
        for name in (*STAGES[:-1], "baseline", "evaluate", "sample"):
            path = "data/model" if name == "train" else f"data/{name}"
            outs = [{"path": path, "md5": f"0123456789abcdef{name}.dir"}]
            if name in SCORED:
                metrics = f"metrics/{name}.json"
                outs.append({"path": metrics, "md5": digest(json.dumps(self.metrics(name)))})
            stages[name] = {"deps": made, "outs": outs, "params": {"params.yaml": read}}
            made = outs[:1]
        return stages

    def metrics(self, stage: str) -> dict[str, Any]:
        models = {"uniform": 30.0, "unigram": 28.0, "bigram": 25.0, "kneser_ney": 24.0}
        overlap = {"with_test": self.dear / 40, "of_real": 0.75, "of_real_low": 0.5}
        divergence = {"from_test": self.dear / 100, "of_real_high": 0.3}
        velocity = {"overlap": overlap, "divergence": divergence}
        passages = {"pieces": 6, "mean_notes": 5.25, "longest_notes": 9}
        of_test = {**passages, "mean_notes": 4.5, "longest_notes": 100, "longest_notes_of_as_many": 7.25}
        own = (10 + 3 * self.dear) / 4
        sample = {
            "samples": 6,
            "excerpts": {"seconds": self.seconds, "train": 24, "test": 11},
            "music": {
                "pitch_range": {**velocity, "divergence": {**divergence, "of_real_high": 9.0}},
                "velocity": velocity,
            },
            "memorization": {"samples": passages, "test": of_test},
        }
        for name in self.without:
            del sample[name]
        found: dict[str, dict[str, Any]] = {
            "train": {"parameters": 1_234_567, "tokens": 7_000},
            "baseline": {
                split: {name: score(bits) for name, bits in models.items()}
                for split in ("validation", "test")
            },
            "evaluate": {"validation": score(own + 1), "test": score(own)},
            "sample": sample,
        }
        return found[stage]

    def performances(self) -> pd.DataFrame:
        notes = np.array([1, 3])
        bits = np.array([10.0, self.dear]) * notes
        test = pd.DataFrame(
            {
                "split": "test",
                "midi_filename": self.titles,
                "composer": "C",
                "title": self.titles,
                "notes": notes,
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


def tables(*made: Made) -> str:
    return markdown([read_run(name, each) for name, each in zip(("ours", "plain"), made, strict=False)])


def test_every_figure_is_where_it_belongs() -> None:
    text = tables(Made(), Made(dear=24.0))
    table = rows(text)
    assert table["bigram"] == [["", "", "25.00", "25.00 [24.00, 27.00]", "2.500"]]
    assert table["Kneser-Ney 3-gram"][0][2] == "24.00"
    assert table["ours"][0] == ["1,234,567", "7,000", "18.50", "17.50 [16.50, 19.50]", "1.750"]
    assert table["plain"][0][2:] == ["21.50", "20.50 [19.50, 22.50]", "2.050"]
    assert table["pitch range"] == [["0.75 (0.50)", "0.50", "0.60"]]
    assert table["measures that distinguish samples"] == [["", "0 of 2", "0 of 2"]], (
        "0.50 is not less than 0.50"
    )
    assert table["test excerpts"] == [["6", "4.5", "7.2"]]
    assert table["ours"][1] == ["6", "5.2", "9.0"]
    lock = hashlib.sha256(Made(dear=24.0).text("dvc.lock").encode()).hexdigest()[:12]
    assert table["plain"][2] == ["`c0ffeec0ffee`", f"`{lock}`", "`0123456789ab`"]
    assert "Test: 4 notes; performances: 2." in text
    assert "Samples: 6; excerpts: 24 of train and 11 of test; each of 30 s." in text


def test_the_difference_is_of_the_same_compositions() -> None:
    """Four bits more on three notes of four; draws hold the one composition, the other, or both."""
    assert "plain minus ours, test: +3.00 [+0.00, +4.00] bits per note." in tables(Made(), Made(dear=24.0))
    assert "minus ours" not in tables(Made())


def test_another_treatment_of_the_pedal_is_not_ranked() -> None:
    text = tables(Made(), Made(dear=24.0, pedal="ignore"))
    assert "plain minus ours, test: not comparable, because their tokenizers" in text and "+3.00" not in text


def test_what_a_run_cannot_say_is_left_empty() -> None:
    """Too few samples with notes give no overlap, and silent ones no passages."""
    table = rows(tables(Made(), Made(without=("music", "memorization"))))
    assert table["pitch range"] == [["0.75 (0.50)", "0.50", ""]]
    assert table["plain"][1] == ["", "", ""]
    assert table["measures that distinguish samples"] == [["", "0 of 2", ""]]
    table = rows(tables(Made(without=("music", "memorization"))))
    assert "pitch range" not in table and "measures that distinguish samples" not in table
    assert table["test excerpts"] == [["", "", ""]]


def test_measures_that_tell_samples_from_music_are_counted() -> None:
    """Real music overlaps by 0.5 at the least, and diverges in one measure by 0.3 at the most."""
    table = rows(tables(Made(dear=19.9), Made(dear=20.1)))
    assert table["measures that distinguish samples"] == [["", "2 of 2", "0 of 2"]]
    assert rows(tables(Made(dear=30.1)))["measures that distinguish samples"] == [["", "1 of 2"]]


STALE = Made(dear=3.0).stages() | {
    "train": Made().stages()["train"] | {"outs": [{"path": "data/model", "md5": "f"}]}
}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Made(files={"dvc.lock": ""}), "plain: dvc.lock: must show that every stage ran"),
        (Made(files={"dvc.lock": "stages: {}"}), "plain: dvc.lock: must show that every stage"),
        (Made(files={"dvc.lock": "stages: ["}), "plain: dvc.lock"),
        (
            Made(files={"dvc.lock": yaml.safe_dump({"stages": STALE})}),
            "plain: dvc.lock: must show that every stage",
        ),
        (Made(files={"params.yaml": "baseline: {kneser_ney_order: 4}"}), "with these params"),
        (Made(files={"params.yaml": ""}), "plain: dvc.lock: must show that every stage"),
        (
            Made(files={"metrics/evaluate.json": "{}"}),
            "plain: metrics/evaluate.json: must match its digest in dvc.lock",
        ),
        (Made(titles=("b", "c")), "plain: must be scored on the same test performances as ours"),
        (Made(seconds=60.0), "plain: samples: must be compared with the same number"),
    ],
)
def test_what_does_not_fit_is_refused(made: Made, words: str) -> None:
    with pytest.raises(UserError, match=words):
        tables(Made(), made)


def test_a_checkout_is_read_as_it_lies(tmp_path: Path) -> None:
    made, files = Made(), Checkout(tmp_path, "abc")
    for path in ("dvc.lock", "params.yaml", *(f"metrics/{stage}.json" for stage in SCORED)):
        with pytest.raises(UserError, match=f"{path}: must exist"):
            files.text(path)
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(made.text(path))
    expected = replace(made, began_at="abc")
    assert tables_of(files) == tables_of(expected), "one run needs no performances"
    with pytest.raises(
        UserError, match=r"performances\.parquet: must exist and be readable, got no such file"
    ):
        files.performances()
    (tmp_path / "data" / "evaluation").mkdir(parents=True)
    path = tmp_path / "data" / "evaluation" / "performances.parquet"
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"performances\.parquet: must exist and be readable"):
        files.performances()
    made.performances().to_parquet(path)
    assert files.performances()["nats"].tolist() == made.performances()["nats"].tolist()
    (tmp_path / "dvc.lock").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"dvc\.lock: must exist and be readable, got not UTF-8 text"):
        files.text("dvc.lock")


def tables_of(files: RunFiles) -> str:
    return markdown([read_run("ours", files)])


def test_an_unknown_experiment_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    with pytest.raises(SystemExit, match="experiment 'never-ran': must be the name of a DVC"):
        main(["result", "never-ran"])
    assert capsys.readouterr().out == ""
