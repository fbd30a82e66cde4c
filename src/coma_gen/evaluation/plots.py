"""The rows that DVC's plots draw: small tables with no empty cell, for DVC draws those as 0."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from coma_gen.evaluation.headline import BITS

OURS = "this model"
FEWEST_TOKENS = 100
"""A cost of fewer tokens says nothing, where any is of more."""
Table = tuple[tuple[str, str], list[tuple[str, str]]]
"""Two column heads, and rows of two cells."""


def plot_tables(
    metrics: Mapping[str, Any], curve: Iterable[Mapping[str, str]], contexts: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Name of a file in metrics/ -> its CSV.

    Args:
        metrics: baseline and evaluate -> what their metrics files hold.
        curve: rows of the curve.
        contexts: rows of the evaluation's table of what a token costs by its context.
    """
    test = metrics["evaluate"]["test"]
    models = {name.replace("_", " "): of for name, of in metrics["baseline"]["test"].items()} | {OURS: test}
    tables: dict[str, Table] = {
        "validation.csv": (("step", "validation_nll"), list(_validations(curve))),
        "models.csv": (("model", "bits"), [(name, f"{of[BITS]:.6g}") for name, of in models.items()]),
        "context.csv": (("context", "nll"), _by_context(contexts)),
        "types.csv": (
            ("type", "nll"),
            [
                (row["type"], f"{row['nll_per_token']:.6g}")
                for row in _of_enough([{"type": name, **of} for name, of in test["by_type"].items()])
            ],
        ),
    }
    return {name: _written(table) for name, table in tables.items()}


def _validations(curve: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Those rows of the curve in which the validation split was scored."""
    for row in curve:
        if row["validation_nll"]:
            yield row["step"], row["validation_nll"]


def _by_context(contexts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What a token of test costs by how many were before it in its window; each bin at its upper end."""
    of_test = [row for row in contexts if row["split"] == "test" and row["protocol"] == "windowed"]
    return [(str(row["context_to"]), f"{row['nll_per_token']:.6g}") for row in _of_enough(of_test)]


def _of_enough(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The rows of so many tokens that their cost says something; all, where none is."""
    return [row for row in rows if row["tokens"] >= FEWEST_TOKENS] or rows


def _written(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table[0])
    writer.writerows(table[1])
    return text.getvalue()
