"""CSV tables for DVC plots. They have no empty cells, because DVC plots those as 0."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from coma_gen.evaluation.headline import BITS

OURS = "this model"
FEWEST_TOKENS = 100
"""Means over fewer tokens are too noisy to plot."""
Table = tuple[tuple[str, str], list[tuple[str, str]]]
"""Two column names, and rows of two cells."""


def plot_tables(
    metrics: Mapping[str, Any], curve: Iterable[Mapping[str, str]], contexts: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Returns name of a file in metrics/ -> its CSV.

    Args:
        metrics: "baseline" and "evaluate" -> their metrics.
        curve: Rows of the training curve.
        contexts: Rows of the evaluation's table of nats by context length.
    """
    test = metrics["evaluate"]["test"]
    models = {name.replace("_", " "): of for name, of in metrics["baseline"]["test"].items()} | {OURS: test}
    tables: dict[str, Table] = {
        "validation.csv": (("step", "validation_nll"), list(_iter_validations(curve))),
        "models.csv": (("model", "bits"), [(name, f"{of[BITS]:.6g}") for name, of in models.items()]),
        "context.csv": (("context", "nll"), _tabulate_contexts(contexts)),
        "types.csv": (
            ("type", "nll"),
            [
                (row["type"], f"{row['nll_per_token']:.6g}")
                for row in _drop_rare([{"type": name, **of} for name, of in test["by_type"].items()])
            ],
        ),
    }
    return {name: _format_csv(table) for name, table in tables.items()}


def _iter_validations(curve: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Yields step and value of the curve's rows that have a validation loss."""
    for row in curve:
        if row["validation_nll"]:
            yield row["step"], row["validation_nll"]


def _tabulate_contexts(contexts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Tabulates the test split's nats per token by position in the window; each bin is at its upper end."""
    of_test = [row for row in contexts if row["split"] == "test" and row["protocol"] == "windowed"]
    return [(str(row["context_to"]), f"{row['nll_per_token']:.6g}") for row in _drop_rare(of_test)]


def _drop_rare(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Returns the rows with at least `FEWEST_TOKENS` tokens; all rows where there is none."""
    return [row for row in rows if row["tokens"] >= FEWEST_TOKENS] or rows


def _format_csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table[0])
    writer.writerows(table[1])
    return text.getvalue()
