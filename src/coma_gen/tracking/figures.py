"""What MLflow has of a run's figures besides the headline: the speed of its machine, and all as one table.

A run has about 350 figures. MLflow draws a chart of each metric and lists them by name, so that those to
compare runs by would be lost among them: only the headline and the speed are metrics.
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

MEASURED = ("tokens_per_second", "training_seconds")
"""What depends on the machine, from speed.csv: the median, and the sum."""
TABLE = "figures.json"


def measured(curve: Sequence[Row], speed: Sequence[Row]) -> dict[str, float]:
    """How fast this machine trained, and for how long; nothing where it did not.

    Args:
        curve: rows with the `tokens` seen so far.
        speed: rows with `tokens_per_second` since the row before; of a step that ran twice, the first counts.
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
    return {name: float(f"{value:.6g}") for name, value in zip(MEASURED, values, strict=True) if value > 0}


def write_table(folder: Path, measures: Iterable[Measures]) -> None:
    """Writes all figures as a table that MLflow shows: a row for each, with the numbers as they are."""
    rows: list[tuple[str, float | str]] = []
    for part in measures:
        rows += [(name, _plain(value)) for name, value in part.numbers.items()]
        rows += list(part.texts.items())
    table = {"columns": ["figure", "value"], "data": sorted(rows, key=lambda row: row[0])}
    write_atomic(folder / TABLE, json.dumps(table, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: float) -> float | str:
    """A number as a table's cell: whole ones without a point, and none that JSON lacks."""
    if not math.isfinite(value):
        return str(value)
    return int(value) if value.is_integer() else value
