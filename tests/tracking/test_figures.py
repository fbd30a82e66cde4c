"""The few figures of a run, among all that the stages wrote."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from coma_gen.core.io import read_json
from coma_gen.tracking.csv_tail import Row
from coma_gen.tracking.figures import FIGURES, HEADLINE, MEASURED, TABLE, headline, measured, write_table
from coma_gen.tracking.flatten import Measures, flat_metrics
from coma_gen.tracking.run_sync import CURVES
from coma_gen.training import metrics_log

METRICS = Path(__file__).parents[2] / "metrics"
STAGES = ("download", "split", "fit_tokenizer", "shard", "baseline", "train", "evaluate", "sample")


@pytest.fixture
def numbers() -> dict[str, float]:
    """All that the committed metrics hold."""
    parts = [flat_metrics(stage, read_json(METRICS / f"{stage}.json")) for stage in STAGES]
    return {name: value for part in parts for name, value in part.numbers.items()}


def test_they_are_at_most_fifteen_and_the_committed_metrics_have_them(numbers: dict[str, float]) -> None:
    names = {figure.name for figure in FIGURES}
    assert len(FIGURES) + len(MEASURED) <= 15
    assert names - set(headline(numbers)) == {"bits_test_low", "bits_test_high"}  # one composition only
    assert len(numbers) > 200


def test_they_are_the_numbers_of_the_files(numbers: dict[str, float]) -> None:
    found = headline(numbers)
    assert found[HEADLINE] == numbers["evaluate/test/bits_per_note_10ms"]
    n_grams = [
        numbers[f"baseline/test/{name}/bits_per_note_10ms"] for name in ("unigram", "bigram", "kneser_ney")
    ]
    assert found["bits_test_ngram"] == min(n_grams)
    overlaps = [value for name, value in numbers.items() if name.endswith("/overlap/with_test")]
    assert len(overlaps) == 9
    assert found["music_overlap"] == pytest.approx(sum(overlaps) / 9, rel=1e-5)


def test_an_interval_is_there_where_the_files_have_one() -> None:
    interval = {
        f"evaluate/test/bits_per_note_10ms_{end}": value for end, value in (("low", 1.0), ("high", 2.0))
    }
    assert headline(interval) == {"bits_test_low": 1.0, "bits_test_high": 2.0}


def test_the_bits_to_compare_come_first_by_name() -> None:
    assert min(figure.name for figure in FIGURES) == HEADLINE


def test_the_curves_that_count_come_first_by_name() -> None:
    assert sorted(CURVES.values())[:2] == ["loss/train", "loss/validation"]
    assert set(CURVES) == {field.name for field in fields(metrics_log.MetricsRow)} - {"step", "tokens"}


def test_seconds_are_those_of_each_row() -> None:
    rows = [Row(10, {"tokens": 100.0}), Row(20, {"tokens": 200.0}), Row(30, {"tokens": 400.0})]
    speed = [Row(10, {"tokens_per_second": 10.0}), Row(20, {"tokens_per_second": 50.0})]
    again = [Row(20, {"tokens_per_second": 1.0}), Row(30, {"tokens_per_second": 20.0})]
    expected = {"tokens_per_second": 20.0, "training_seconds": 10.0 + 2.0 + 10.0}
    assert measured(rows, [*speed, *again]) == expected


def test_without_speeds_there_are_none() -> None:
    rows = [Row(10, {"tokens": 100.0})]
    assert measured(rows, []) == measured(rows, [Row(10, {"tokens_per_second": 0.0})]) == {}


def test_the_table_is_json_whatever_the_numbers(tmp_path: Path) -> None:
    numbers = {"b": 3.0, "a": 0.1 + 0.2, "c": float("inf"), "d": float("nan")}
    write_table(tmp_path, [Measures(numbers=numbers, texts={"e": "text"})])
    table = json.loads((tmp_path / TABLE).read_text(), parse_constant=pytest.fail)
    assert table["data"] == [["a", 0.1 + 0.2], ["b", 3], ["c", "inf"], ["d", "nan"], ["e", "text"]]
