"""The fit_tokenizer stage on a corpus of four short performances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coma_gen.artefact import seal
from coma_gen.corpus.performance import Performance, write_table
from coma_gen.errors import UserError
from coma_gen.music.midi import midi_bytes
from coma_gen.tokenizer.fit import evenly_spaced, fit_tokenizer
from coma_gen.tokenizer.remi import Tokenizer


@pytest.fixture
def folders(tmp_path: Path, make_music: Callable[..., Any]) -> tuple[Path, Path]:
    """A split with nothing but its train table, and the corpus."""
    split, corpus, rows = tmp_path / "split", tmp_path / "corpus", []
    split.mkdir()
    corpus.mkdir()
    for seed in range(4):
        notes = make_music(seed, count=200, seconds=30.0)
        (corpus / f"{seed}.mid").write_bytes(midi_bytes(notes))
        rows.append(Performance("Nobody", "Étude", "train", "", f"{seed}.mid", notes.end, notes=len(notes)))
    write_table(split / "train.csv", rows)
    seal(split, kind="split", made_from={}, settings={})
    return split, corpus


@pytest.mark.parametrize("vocab_size", [None, 420])
def test_the_stage(
    folders: tuple[Path, Path], tmp_path: Path, make_params: Any, vocab_size: int | None
) -> None:
    params = make_params(vocab_size=vocab_size, fidelity_performances=2)
    metrics = fit_tokenizer(params, *folders, tmp_path / "tokenizer")
    again = fit_tokenizer(params, *folders, tmp_path / "again")
    assert metrics == again
    assert metrics["vocab_size"] == (vocab_size or metrics["base_vocab_size"])
    assert metrics["fidelity"]["performances"] == 2
    assert metrics["fidelity"]["notes_lost"] == 0
    loaded = Tokenizer.load(tmp_path / "tokenizer")
    assert loaded.vocab_size == metrics["vocab_size"]
    assert loaded.digest == Tokenizer.load(tmp_path / "again").digest


def test_a_tokenizer_that_loses_too_much_leaves_nothing(
    folders: tuple[Path, Path], tmp_path: Path, make_params: Any
) -> None:
    with pytest.raises(UserError, match="max_onset_rms_ms"):
        fit_tokenizer(make_params(max_onset_rms_ms=0.1), *folders, tmp_path / "tokenizer")
    assert not (tmp_path / "tokenizer").exists()


def test_samples_are_evenly_spaced() -> None:
    assert evenly_spaced(10, 2) == [2, 7]
    assert evenly_spaced(3, 5) == [0, 1, 2]
