"""Sample metrics: real music passes as real, and copies of train are detected."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_corpus import Made, played

from coma_gen.config.schema import SampleParams
from coma_gen.core.artifact import read_manifest
from coma_gen.core.errors import UserError
from coma_gen.core.io import rounded
from coma_gen.evaluation.excerpts import cut_excerpts
from coma_gen.evaluation.music_metrics import MEASURES
from coma_gen.evaluation.sample_metrics import TABLE, sample_metrics
from coma_gen.evaluation.splits import check_tokens
from coma_gen.generation.continuation import Continuation
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes


class Sample:
    """What the figures ask of a generated piece."""

    def __init__(
        self, new: Notes, *, valid: bool = True, reached: bool = True, illegal: float = 0.25
    ) -> None:
        self.new, self.valid, self.reached, self.illegal = new, valid, reached, illegal
        self.tokens, self.rewinds, self.redrawn = 3 * len(new), 1, 7


def of(made: Made, music: list[Notes], folder: Path, **changes: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    pieces: list[Any] = [Sample(notes, **changes) for notes in music]
    folder.mkdir(exist_ok=True)
    for number, notes in enumerate(music):
        (folder / f"{number}.mid").write_bytes(midi_bytes(notes))
    metrics = sample_metrics(params(made), pieces, made.model, made.shards, folder)
    return metrics, pd.read_parquet(folder / TABLE)


def params(made: Made) -> SampleParams:
    return made.params.sample.model_copy(update={"seconds": 4.0, "excerpts": 9})


def test_a_piece_has_what_is_asked_of_it() -> None:
    asked = vars(Sample(Notes.empty()))
    assert all(name in Continuation.__dataclass_fields__ or hasattr(Continuation, name) for name in asked)


def test_figures_stand_beside_their_numbers(made: Made, tmp_path: Path) -> None:
    music = [played(90 + seed, seconds=4.0) for seed in range(5)]
    metrics, table = of(made, music, tmp_path / "samples")
    assert (metrics["samples"], metrics["seed"]) == (5, made.params.sample.seed)
    assert (metrics["rewinds"], metrics["tokens_redrawn"]) == (5, 35)
    assert metrics["excerpts"] == {"seconds": 4.0, "train": 9, "test": 9, "at_a_time": 4}
    assert metrics["files_that_decode"] == 1
    assert metrics["illegal_probability"] == 0.25
    assert metrics["notes"] == sum(map(len, music))
    assert set(metrics["music"]) == set(MEASURES)
    for figures in metrics["music"].values():
        assert set(figures) == {"mean", "overlap", "divergence"}
    assert json.loads(json.dumps(rounded(metrics))) == rounded(metrics)
    assert table["set"].value_counts().to_dict() == {"train": 9, "test": 9, "samples": 5}
    mean = table[table["set"] == "samples"]["velocity"].mean()
    assert mean == pytest.approx(metrics["music"]["velocity"]["mean"]["samples"], rel=1e-5)


def test_real_music_is_within_the_floor_and_noise_is_not(made: Made, tmp_path: Path) -> None:
    real = [
        part.notes for part in cut_excerpts(made.sharded("validation"), made.vocabulary, count=6, seconds=4.0)
    ]
    low = [Notes.of(notes.onset, notes.duration, notes.pitch // 4, notes.velocity // 4) for notes in real]
    alike, _ = of(made, real, tmp_path / "real")
    unlike, _ = of(made, low, tmp_path / "low")
    for name in ("velocity", "pitch_range"):
        assert alike["music"][name]["overlap"]["with_train"] > alike["music"][name]["overlap"]["of_real_low"]
        assert (
            unlike["music"][name]["overlap"]["with_train"] < unlike["music"][name]["overlap"]["of_real_low"]
        )


def test_a_copy_of_the_train_split_is_found_and_named(made: Made, tmp_path: Path) -> None:
    (part, *_) = cut_excerpts(made.sharded("train"), made.vocabulary, count=1, seconds=4.0)
    copy = replace(part.notes, pitch=(part.notes.pitch + 3).astype(np.uint8))
    metrics, table = of(made, [played(77, seconds=4.0), copy], tmp_path / "samples")
    memory = metrics["memorization"]
    assert memory["samples"]["longest_notes"] == len(copy)
    assert memory["samples"]["longest_notes"] > 2 * memory["test"]["longest_notes"]
    row = table[(table["set"] == "samples") & (table["piece"] == 2)].iloc[0]
    assert (row["passage_in"], row["passage_notes"]) == (part.midi_filename, len(copy))


def test_empty_and_broken_samples_are_counted(made: Made, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "9.mid").write_bytes(b"MThd nothing")
    pieces: list[Any] = [Sample(played(3, seconds=4.0)), Sample(Notes.empty(), valid=False, reached=False)]
    (tmp_path / "samples" / "0.mid").write_bytes(midi_bytes(pieces[0].new))
    metrics = sample_metrics(params(made), pieces, made.model, made.shards, tmp_path / "samples")
    assert (metrics["without_notes"], metrics["invalid"], metrics["cut_at_max_tokens"]) == (1, 1, 1)
    assert metrics["files_that_decode"] == 0.5
    assert set(metrics["music"]["velocity"]) == {"mean"}, "one sample has no distances"


def test_no_sample_has_notes(made: Made, tmp_path: Path) -> None:
    metrics, table = of(made, [Notes.empty()], tmp_path / "samples")
    assert set(metrics["memorization"]) == {"test"}
    assert set(metrics["music"]["velocity"]["mean"]) == {"train", "test"}
    assert "samples" not in set(table["set"])


def test_twice_the_same_bytes(made: Made, tmp_path: Path) -> None:
    music = [played(90 + seed, seconds=4.0) for seed in range(2)]
    first, second = (of(made, music, tmp_path / name)[0] for name in ("one", "two"))
    assert first == second
    assert (tmp_path / "one" / TABLE).read_bytes() == (tmp_path / "two" / TABLE).read_bytes()


def test_tokens_of_another_tokenizer_are_refused(made: Made) -> None:
    model = read_manifest(made.model, kind="model")
    other = replace(model, made_from={**model.made_from, "tokenizer": "0" * 64})
    with pytest.raises(UserError, match="must have been trained on the tokens of"):
        check_tokens(made.shards, other, made.model)
