"""The speed of a run, and all of its figures as a table."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from coma_gen.evaluation.headline import ABOUT, RANKED_BY
from coma_gen.tracking.csv_tail import Row
from coma_gen.tracking.figures import SPEED_FIGURES, TABLE, compute_speed_figures, write_table
from coma_gen.tracking.flatten import Measures
from coma_gen.tracking.run_sync import CURVES
from coma_gen.training import metrics_log


def test_metrics_are_few_and_the_headline_names_none_of_the_others() -> None:
    assert len(ABOUT) + len(SPEED_FIGURES) <= 15
    assert not set(ABOUT) & {*SPEED_FIGURES, *CURVES.values()}
    assert min(ABOUT) == RANKED_BY  # MLflow lists metrics by name


def test_the_curves_that_count_come_first_by_name() -> None:
    assert sorted(CURVES.values())[:2] == ["loss/train", "loss/validation"]
    assert set(CURVES) == {field.name for field in fields(metrics_log.MetricsRow)} - {"step", "tokens"}


def test_seconds_are_those_of_each_row() -> None:
    rows = [Row(10, {"tokens": 100.0}), Row(20, {"tokens": 200.0}), Row(30, {"tokens": 400.0})]
    speed = [Row(10, {"tokens_per_second": 10.0}), Row(20, {"tokens_per_second": 50.0})]
    again = [Row(20, {"tokens_per_second": 1.0}), Row(30, {"tokens_per_second": 20.0})]
    expected = {"tokens_per_second": 20.0, "training_seconds": 10.0 + 2.0 + 10.0}
    assert compute_speed_figures(rows, [*speed, *again]) == expected


def test_without_speeds_there_are_none() -> None:
    rows = [Row(10, {"tokens": 100.0})]
    assert (
        compute_speed_figures(rows, [])
        == compute_speed_figures(rows, [Row(10, {"tokens_per_second": 0.0})])
        == {}
    )


def test_the_table_is_json_whatever_the_numbers(tmp_path: Path) -> None:
    numbers = {"b": 3.0, "a": 0.1 + 0.2, "c": float("inf"), "d": float("nan")}
    write_table(tmp_path, [Measures(numbers=numbers, texts={"e": "text"})])
    table = json.loads((tmp_path / TABLE).read_text(), parse_constant=pytest.fail)
    assert table["data"] == [["a", 0.1 + 0.2], ["b", 3], ["c", "inf"], ["d", "nan"], ["e", "text"]]
