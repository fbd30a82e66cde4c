"""The few figures that MLflow shows of a run, chosen in one place; all others go with the run as a table.

A run has about 350 figures. MLflow draws a chart of each metric and lists them by name, so that those to
compare runs by are lost among them. Their names are short, since the runs table heads its columns with them,
and sort with the bits first.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coma_gen.core.io import write_atomic
from coma_gen.tracking.csv_tail import Row
from coma_gen.tracking.flatten import Measures

HEADLINE, NGRAM = "bits_test", "bits_test_ngram"
"""The figure to compare models by, fewer is better; and the baseline's."""
BITS = "bits_per_note_10ms"
N_GRAMS = tuple(f"baseline/test/{name}/{BITS}" for name in ("unigram", "bigram", "kneser_ney"))
MUSIC = (
    "pitch_class_entropy",
    "pitch_range",
    "notes_per_second",
    "polyphony",
    "inter_onset",
    "velocity",
    "duration",
    "groove_similarity",
    "self_repetition",
    "stay_on_three_keys",
    "notes_outside_key",
    "return_3_to_8",
    "return_8_to_15",
    "return_from_15",
)


@dataclass(frozen=True)
class Figure:
    """One figure of a run.

    Attributes:
        name: MLflow's metric.
        about: what it says, in words.
        paths: where it stands among all figures; of several, `choose` makes one.
        choose: what makes one number of those that are there.
    """

    name: str
    about: str
    paths: tuple[str, ...]
    choose: str = "first"


FIGURES = (
    Figure(HEADLINE, "bits per note on the test split, at 10 ms", (f"evaluate/test/{BITS}",)),
    Figure("bits_test_low", "where its 95% interval begins", (f"evaluate/test/{BITS}_low",)),
    Figure("bits_test_high", "where it ends", (f"evaluate/test/{BITS}_high",)),
    Figure(NGRAM, "of the best n-gram, to be undercut", N_GRAMS, "least"),
    Figure("bits_validation", "bits per note on the validation split", (f"evaluate/validation/{BITS}",)),
    Figure("nats_test", "nats per token; only of one tokenizer", ("evaluate/test/nll_per_token",)),
    Figure("nats_validation", "the same, validation split", ("evaluate/validation/nll_per_token",)),
    Figure(
        "music_overlap",
        "of the samples' distributions with the test music's, mean over the measures; 1 = the same",
        tuple(f"sample/music/{name}/overlap/with_test" for name in MUSIC),
        "mean",
    ),
    Figure(
        "music_copied",
        "notes of train music, longest passage",
        ("sample/memorisation/samples/longest_notes",),
    ),
    Figure("music_illegal", "probability on tokens that cannot follow", ("sample/illegal_probability",)),
    Figure("parameters", "weights of the model", ("train/parameters",)),
    Figure("steps", "optimizer steps", ("train/steps",)),
    Figure("tokens", "seen in training", ("train/tokens",)),
)
"""What the files of metrics/ say; the interval is not there where the test split has one composition."""
MEASURED = ("tokens_per_second", "training_seconds")
"""What depends on the machine, from speed.csv: the median, and the sum."""
TABLE = "figures.json"


def headline(numbers: Mapping[str, float]) -> dict[str, float]:
    """The figures among all numbers of metrics/, as `flat_metrics` names them; those that are there."""
    found = {
        figure.name: _chosen(figure.choose, [numbers[path] for path in figure.paths if path in numbers])
        for figure in FIGURES
    }
    return {name: value for name, value in found.items() if value is not None}


def _chosen(choose: str, values: list[float]) -> float | None:
    if not values:
        return None
    if choose == "mean":
        return float(f"{statistics.fmean(values):.6g}")
    return min(values) if choose == "least" else values[0]


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
