"""The split stage: hand-computed figures, unreadable files, filters, changed inputs, reproducible bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coma_gen.config.schema import SplitParams
from coma_gen.core.artifact import verify_artifact, write_manifest
from coma_gen.core.errors import UserError
from coma_gen.corpus.split import split_corpus
from coma_gen.corpus.table import SPLITS, Performance, read_table, write_table
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes

Params = Callable[..., SplitParams]


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., Path]:
    """Makes a sealed corpus: (composer, title, split, number of notes; None = unreadable)."""

    def make(*pieces: tuple[str, str, str, int | None]) -> Path:
        folder = tmp_path / "corpus"
        folder.mkdir()
        rows = []
        for index, (composer, title, split, notes) in enumerate(pieces):
            name = f"{index}.mid"
            music = Notes.of(
                range(notes or 0), [1] * (notes or 0), [60 + index] * (notes or 0), [64] * (notes or 0)
            )
            (folder / name).write_bytes(b"no music" if notes is None else midi_bytes(music))
            rows.append(Performance(composer, title, split, "", name, 1800.0, f"{index:064d}"))
        write_table(folder / "corpus.csv", rows)
        write_manifest(folder, kind="corpus", made_from={}, settings={})
        return folder

    return make


def test_the_figures_are_those_of_the_table_and_the_files(
    corpus: Callable[..., Path], tmp_path: Path, split_params: Params
) -> None:
    folder = corpus(
        ("A / B", "one", "train", 5),
        ("C", "two", "train", 6),
        ("C", "two", "test", 7),
        ("C", "x", "validation", 1),
    )
    metrics = split_corpus(split_params(), folder, tmp_path / "split")
    assert metrics == {
        "train": {"performances": 2, "hours": 1.0, "notes": 11},
        "validation": {"performances": 1, "hours": 0.5, "notes": 1},
        "test": {"performances": 1, "hours": 0.5, "notes": 7},
        "unreadable": {"performances": 0, "reasons": {}},
        "filtered": {"performances": 0, "composers": 0},
        "compositions_in_two_splits": 1,
        "compositions_in_two_splits_named": ["C, two (train, test)"],
        "moved": 0,
    }
    train = read_table(tmp_path / "split" / "train.csv", folder=folder)
    assert [(row.composer, row.split, row.midi_filename, row.notes) for row in train] == [
        ("A / B", "train", "0.mid", 5),
        ("C", "train", "1.mid", 6),
    ]
    manifest = verify_artifact(tmp_path / "split", kind="split")
    assert sorted(manifest.files) == ["test.csv", "train.csv", "validation.csv"]
    assert manifest.made_from == {"corpus": verify_artifact(folder, kind="corpus").digest}
    assert manifest.settings == {}, "a setting that changes no table must not change what follows"


@pytest.mark.parametrize(("method", "leaks"), [("official", 0), ("by-composition", 0), ("by-file", 6)])
def test_a_leaked_split_is_told_from_a_clean_one(
    corpus: Callable[..., Path], tmp_path: Path, split_params: Params, method: str, leaks: int
) -> None:
    """Six compositions, played five times each. The table keeps each in one split, lots tear them apart."""
    splits = ["train"] * 4 + ["validation", "test"]
    folder = corpus(*[("C", f"T{work}", split, 2) for work, split in enumerate(splits) for _ in range(5)])
    halves = split_params(method, validation_fraction=0.3, test_fraction=0.3)
    metrics = split_corpus(halves, folder, tmp_path / "split")
    parts = {
        name: {row.title for row in read_table(tmp_path / "split" / f"{name}.csv", folder=folder)}
        for name in SPLITS
    }
    torn = [
        title
        for title in sorted(set().union(*parts.values()))
        if sum(title in of for of in parts.values()) > 1
    ]
    assert metrics["compositions_in_two_splits"] == len(torn) == leaks
    named = metrics.get("compositions_in_two_splits_named", [])
    assert [name.split(" (")[0] for name in named] == [f"C, {title}" for title in torn]


def test_unreadable_files_refuse_the_run_unless_allowed(
    corpus: Callable[..., Path], tmp_path: Path, split_params: Params
) -> None:
    pieces: list[Any] = [("C", f"T{i}", split, 3) for i, split in enumerate(SPLITS)]
    folder = corpus(*pieces, ("C", "bad", "train", None), ("C", "silent", "train", 0))
    with pytest.raises(UserError) as caught:
        split_corpus(split_params(max_unreadable=1), folder, tmp_path / "split")
    assert [fault.where for fault in caught.value.faults] == ["3.mid", "4.mid"]
    assert "split.max_unreadable is 1, 2 are unreadable" in str(caught.value)
    assert not (tmp_path / "split").exists()
    metrics = split_corpus(split_params(max_unreadable=2), folder, tmp_path / "split")
    assert metrics["unreadable"] == {
        "performances": 2,
        "reasons": {"must be a MIDI file, which begins with 'MThd'": 1, "must have notes": 1},
        "files": [
            "3.mid: must be a MIDI file, which begins with 'MThd', got 'no m'",
            "4.mid: must have notes, got none",
        ],
    }
    assert metrics["train"]["performances"] == 1


def test_what_is_filtered_or_moved_is_counted(
    corpus: Callable[..., Path], tmp_path: Path, split_params: Params
) -> None:
    pieces = [("C", f"T{i}", "", 2) for i in range(4)]
    folder = corpus(*pieces, ("D", "other", "", None))
    metrics = split_corpus(split_params(composers_drop=("D",)), folder, tmp_path / "split")
    assert metrics["filtered"] == {"performances": 1, "composers": 1}
    assert metrics["unreadable"]["performances"] == 0
    assert all(metrics[name]["performances"] > 0 for name in SPLITS)
    assert metrics["moved"] == len(metrics.get("moved_named", []))


def test_a_split_emptied_by_a_filter_is_a_fault(
    corpus: Callable[..., Path], tmp_path: Path, split_params: Params
) -> None:
    pieces = [("C", f"T{i}", "train", 2) for i in range(3)]
    folder = corpus(*pieces, ("D", "x", "test", 2), ("D", "y", "validation", 2))
    with pytest.raises(UserError, match=r"must leave no split empty, 'validation' is"):
        split_corpus(split_params(composers_keep=("C",)), folder, tmp_path / "split")


def test_a_changed_corpus_is_refused(
    corpus: Callable[..., Path], tmp_path: Path, split_params: Params
) -> None:
    folder = corpus(*[("C", f"T{i}", split, 3) for i, split in enumerate(SPLITS)])
    (folder / "1.mid").write_bytes(b"changed")
    with pytest.raises(UserError, match=r"1\.mid"):
        split_corpus(split_params(), folder, tmp_path / "split")


@pytest.mark.parametrize("method", ["by-composition", "by-file"])
def test_the_same_split_gives_the_same_bytes(
    corpus: Callable[..., Path], tmp_path: Path, split_params: Params, method: str
) -> None:
    folder = corpus(*[("C", f"T{i}", "train", 3) for i in range(5)])
    for name in ("one", "two"):
        split_corpus(split_params(method), folder, tmp_path / name)
    one, two = (verify_artifact(tmp_path / name, kind="split") for name in ("one", "two"))
    assert one.digest == two.digest
