"""Figures of a run in MLflow besides the headline: training speed as metrics, and all figures as one table.

A run has about 350 figures. MLflow draws a chart for each metric and lists them by name, which would hide
those that matter, so only the headline and the speed are metrics.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from coma_gen.core.io import write_atomic
from coma_gen.tracking.csv_tail import Row
from coma_gen.tracking.flatten import Measures

SPEED_FIGURES = ("tokens_per_second", "training_seconds")
"""Figures that depend on the machine: median tokens per second, and seconds of all steps."""
TABLE = "figures.json"


def compute_speed_figures(curve: Sequence[Row], speed: Sequence[Row]) -> dict[str, float]:
    """Computes training speed and duration; empty if the model was not trained on this machine.

    Args:
        curve: Rows with cumulative `tokens`.
        speed: Rows with `tokens_per_second` since the previous row; if a step ran twice, the first is used.
    """
    rates: dict[int, float] = {}
    for row in speed:
        if (rate := row.values.get("tokens_per_second", 0.0)) > 0:
            rates.setdefault(row.step, rate)
    if not rates:
        return {}
    seconds, before = 0.0, 0.0
    for row in curve:
        tokens = row.values.get("tokens", 0.0)
        seconds += (tokens - before) / rates.get(row.step, statistics.median(rates.values()))
        before = tokens
    values = (statistics.median(rates.values()), seconds)
    return {
        name: float(f"{value:.6g}") for name, value in zip(SPEED_FIGURES, values, strict=True) if value > 0
    }


def write_table(folder: Path, measures: Iterable[Measures]) -> None:
    """Writes all figures as a table for MLflow, one row per figure."""
    rows: list[tuple[str, float | str]] = []
    for part in measures:
        rows += [(name, _plain(value)) for name, value in part.numbers.items()]
        rows += list(part.texts.items())
    table = {"columns": ["figure", "value"], "data": sorted(rows, key=lambda row: row[0])}
    write_atomic(folder / TABLE, json.dumps(table, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: float) -> float | str:
    """Converts a number to a table cell: integers without decimal point, non-finite values as text."""
    if not math.isfinite(value):
        return str(value)
    return int(value) if value.is_integer() else value
