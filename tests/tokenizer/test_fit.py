"""The fit_tokenizer stage on a corpus of six short performances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coma_gen.core.artifact import write_manifest
from coma_gen.core.errors import UserError
from coma_gen.corpus.table import Performance, write_table
from coma_gen.midi.io import midi_bytes
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.stage import evenly_spaced, fit_tokenizer

Write = Callable[[Path, int], tuple[Path, Path]]
TRAIN = 4


@pytest.fixture
def write(make_music: Callable[..., Any]) -> Write:
    def write(folder: Path, first_seed: int) -> tuple[Path, Path]:
        """A split with the tables that are read, its validation music from a seed, and the corpus."""
        split, corpus = folder / "split", folder / "corpus"
        split.mkdir(parents=True)
        corpus.mkdir()
        seeds = {"train": range(TRAIN), "validation": range(first_seed, first_seed + 2)}
        for name, numbers in seeds.items():
            rows = []
            for seed in numbers:
                notes, file = make_music(seed, count=200, seconds=30.0), f"{seed}.mid"
                (corpus / file).write_bytes(midi_bytes(notes))
                rows.append(Performance("Nobody", "Étude", name, "", file, notes.end, notes=len(notes)))
            write_table(split / f"{name}.csv", rows)
        write_manifest(split, kind="split", made_from={}, settings={})
        return split, corpus

    return write


@pytest.fixture
def folders(tmp_path: Path, write: Write) -> tuple[Path, Path]:
    return write(tmp_path, 10)


@pytest.mark.parametrize("vocab_size", [None, 420])
def test_the_stage(
    folders: tuple[Path, Path], tmp_path: Path, make_params: Any, vocab_size: int | None
) -> None:
    params = make_params(vocab_size=vocab_size, fidelity_performances=2)
    metrics = fit_tokenizer(params, *folders, tmp_path / "tokenizer")
    again = fit_tokenizer(params, *folders, tmp_path / "again")
    assert metrics == again
    assert metrics["vocab_size"] == (vocab_size or metrics["base_vocab_size"])
    assert {name: of["performances"] for name, of in metrics["fidelity"].items()} == {
        "train": 2,
        "validation": 2,
    }
    assert [of["notes_lost"] for of in metrics["fidelity"].values()] == [0, 0]
    assert metrics["fidelity"]["train"] != metrics["fidelity"]["validation"]
    loaded = Tokenizer.load(tmp_path / "tokenizer")
    assert loaded.vocab_size == metrics["vocab_size"]
    assert loaded.digest == Tokenizer.load(tmp_path / "again").digest


def test_byte_pairs_come_from_train_alone(tmp_path: Path, make_params: Any, write: Write) -> None:
    learned, measured = [], []
    for name, first_seed in (("one", 10), ("other", 20)):
        metrics = fit_tokenizer(
            make_params(vocab_size=420), *write(tmp_path / name, first_seed), tmp_path / name / "out"
        )
        learned.append((tmp_path / name / "out" / "vocabulary.json").read_bytes())
        measured.append(metrics["fidelity"])
    assert learned[0] == learned[1]
    assert measured[0]["train"] == measured[1]["train"]
    assert measured[0]["validation"] != measured[1]["validation"]


def test_a_tokenizer_that_loses_too_much_leaves_nothing(
    folders: tuple[Path, Path], tmp_path: Path, make_params: Any
) -> None:
    with pytest.raises(UserError, match="max_onset_rms_ms"):
        fit_tokenizer(make_params(max_onset_rms_ms=0.1), *folders, tmp_path / "tokenizer")
    assert not (tmp_path / "tokenizer").exists()


def test_samples_are_evenly_spaced() -> None:
    assert evenly_spaced(10, 2) == [2, 7]
    assert evenly_spaced(3, 5) == [0, 1, 2]
