"""The rows of DVC's plots: complete, and without empty cells, which DVC draws as 0."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from coma_gen.evaluation.plots import plot_tables

METRICS: dict[str, Any] = {
    "baseline": {
        "test": {"uniform": {"bits_per_note_10ms": 36.0}, "kneser_ney": {"bits_per_note_10ms": 27.5}}
    },
    "evaluate": {
        "test": {
            "bits_per_note_10ms": 21.25,
            "by_type": {
                "EOS": {"tokens": 1, "nll_per_token": 10.0308},
                "Bar": {"tokens": 171, "nll_per_token": 0.870033},
                "Pitch": {"tokens": 2367, "nll_per_token": 3.64321},
            },
        }
    },
}
CURVE = [
    {"step": "20", "train_loss": "5.5", "validation_nll": ""},
    {"step": "40", "train_loss": "4.5", "validation_nll": "5.25"},
    {"step": "60", "train_loss": "4.0", "validation_nll": "4.75"},
]


def context(to: int, tokens: int, *, split: str = "test", protocol: str = "windowed") -> dict[str, Any]:
    return {
        "split": split,
        "protocol": protocol,
        "context_to": to,
        "tokens": tokens,
        "nll_per_token": 4.0 - to / 1024,
    }


def drawn(name: str, *contexts: dict[str, Any]) -> list[dict[str, str]]:
    return list(csv.DictReader(plot_tables(METRICS, CURVE, contexts)[name].splitlines()))


def test_validations_are_those_rows_that_have_one() -> None:
    expected = [{"step": "40", "validation_nll": "5.25"}, {"step": "60", "validation_nll": "4.75"}]
    assert drawn("validation.csv") == expected


def test_the_model_stands_beside_the_baselines() -> None:
    assert {row["model"]: row["bits"] for row in drawn("models.csv")} == {
        "uniform": "36",
        "kneser ney": "27.5",
        "this model": "21.25",
    }


def test_types_of_tokens_of_which_there_are_enough() -> None:
    assert drawn("types.csv") == [{"type": "Bar", "nll": "0.870033"}, {"type": "Pitch", "nll": "3.64321"}]


def test_contexts_are_of_the_windows_of_test_and_of_enough_tokens() -> None:
    rows = [
        context(1, 20),
        context(2, 200),
        context(4, 300, split="validation"),
        context(8, 300, protocol="carried"),
        context(1024, 500),
    ]
    expected = [{"context": "2", "nll": "3.99805"}, {"context": "1024", "nll": "3"}]
    assert drawn("context.csv", *rows) == expected


def test_few_tokens_are_better_than_none() -> None:
    assert drawn("context.csv", context(1, 20)) == [{"context": "1", "nll": "3.99902"}]


@pytest.mark.parametrize("name", ["validation.csv", "models.csv", "types.csv", "context.csv"])
def test_no_cell_is_empty(name: str) -> None:
    assert all(all(row.values()) for row in drawn(name, context(2, 200)))
