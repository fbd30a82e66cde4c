"""What a report is about, as plain data, and how its figures are found.

Metrics come from the stages' JSON files. A figure that is absent is left out, never guessed; what nothing on
the page names is still listed, key by key, at its end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coma_gen.midi.notes import Notes
from coma_gen.report.charts import Bar
from coma_gen.report.svg import Point

Metrics = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]

OURS = "this model"
SPLITS = ("validation", "test")
ALL_SPLITS = ("train", *SPLITS)
BASELINES = ("uniform", "unigram", "bigram", "kneser_ney")
SPELLED = {"kneser_ney": "Kneser-Ney"}
RESOLVED = "bits_per_note_10ms"
FEWEST_TOKENS = 100
"""A cost of fewer tokens says nothing."""
MOST_COMPOSERS = 24
"""Shown of a split, those with the most notes."""


@dataclass(frozen=True)
class SampleView:
    """One piece of generated music.

    Attributes:
        name: what it is called, such as "prompted-0"; also the name of its files, as far as a file can be
            called so.
        notes: the music, prompt included.
        midi: the MIDI file as it is offered for download.
        prompt_seconds: where the prompt ends and the continuation begins; None for music from nothing.
        settings: how it was sampled.
        source: whose music the prompt is, such as "Frédéric Chopin, Étude"; empty where nobody's.
    """

    name: str
    notes: Notes
    midi: bytes
    prompt_seconds: float | None
    settings: Mapping[str, Any]
    source: str = ""


@dataclass(frozen=True)
class ReportContent:
    """Everything a report shows.

    Attributes:
        title: the heading.
        corpus: name of the corpus; where it is synthetic, the page says so beside every figure.
        metrics: stage -> the content of its metrics file.
        curve: rows of the curve file, as a CSV reader gives them or as numbers.
        samples: the gallery, in this order.
        audio: whether each sample is put into the page as sound too.
        model_digest: what the model's runs in MLflow are tagged with, or None.
        params: sections of params.yaml to show.
        performances: rows of the evaluation's table, one a performance.
        composers: the same, one a composer.
        contexts: what a token costs by how many the model saw before it.
        windows: how much each layer listens to each window.
        left_out: how many samples there are beside those of the gallery.
    """

    title: str
    corpus: str
    metrics: Metrics
    curve: Sequence[Mapping[str, Any]]
    samples: Sequence[SampleView]
    audio: bool
    model_digest: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    performances: Rows = ()
    composers: Rows = ()
    contexts: Rows = ()
    windows: Rows = ()
    left_out: int = 0

    @property
    def is_synthetic(self) -> bool:
        """Whether the corpus is made up by a program."""
        return "synthetic" in (self.corpus, self.find("download", "corpus"))

    @property
    def corpus_name(self) -> str:
        """The corpus as captions name it."""
        if self.is_synthetic:
            return self.corpus if "synthetic" in self.corpus.lower() else f"{self.corpus} (synthetic)"
        return self.corpus

    @property
    def corpus_phrase(self) -> str:
        """The same within a sentence."""
        return f"the {self.corpus_name} corpus"

    def find(self, *keys: str) -> Any:
        """The metric below these keys, or None where any of them is absent."""
        found: Any = self.metrics
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def number(self, *keys: str) -> float | None:
        """The same where it is a finite number, else None."""
        found = self.find(*keys)
        return float(found) if is_number(found) else None


def is_number(value: object) -> bool:
    """Whether this is a finite number (and not a truth value)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number_of(value: Any) -> float | None:
    """A finite number out of a number or a cell of text, else None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def scores(content: ReportContent) -> list[tuple[str, str, Metrics]]:
    """(model, split, figures) for every baseline and the model itself, in the order of the table."""
    found = []
    by_split = [content.find("baseline", split) for split in SPLITS]
    names = [name for of_split in by_split if isinstance(of_split, Mapping) for name in of_split]
    known = sorted(dict.fromkeys(names), key=lambda name: BASELINES.index(name) if name in BASELINES else 99)
    for model in (*known, None):
        for split in SPLITS:
            keys = ("evaluate", split) if model is None else ("baseline", split, model)
            figures = content.find(*keys)
            if isinstance(figures, Mapping) and any(map(is_number, figures.values())):
                found.append((SPELLED.get(model or "", model or OURS), split, figures))
    return found


def score_bars(content: ReportContent) -> list[Bar]:
    """The same as bars of bits per note at 10 ms."""
    bars = []
    for model, split, figures in scores(content):
        value, low, high = (number_of(figures.get(RESOLVED + end)) for end in ("", "_low", "_high"))
        if value is not None:
            bars.append(Bar(model, split, value, low, high, is_ours=model == OURS))
    return bars


def curve_points(content: ReportContent, column: str) -> list[Point]:
    """(step, value) of one column of the curve in the order of steps, without empty and infinite cells."""
    cells = ((number_of(row.get("step")), number_of(row.get(column))) for row in content.curve)
    return sorted((step, value) for step, value in cells if step is not None and value is not None)


def token_types(content: ReportContent) -> tuple[str, dict[str, dict[str, float]]]:
    """The split whose token types are shown (test, or validation where test has none), and their figures."""
    for split in reversed(SPLITS):
        by_type = content.find("evaluate", split, "by_type")
        if isinstance(by_type, Mapping):
            numbers = {
                str(name): {key: float(item) for key, item in row.items() if is_number(item)}
                for name, row in by_type.items()
                if isinstance(row, Mapping)
            }
            types = {name: row for name, row in numbers.items() if "nll_per_token" in row}
            if types:
                return split, types
    return "", {}


def last_split(rows: Rows) -> tuple[str, list[Mapping[str, Any]]]:
    """The split that charts are about (test, or validation where there is no test), and its rows."""
    for split in reversed(SPLITS):
        of_split = [row for row in rows if row.get("split") == split]
        if of_split:
            return split, of_split
    return "", []


def context_curves(content: ReportContent) -> tuple[str, dict[str, list[Point]]]:
    """The split, and for each protocol its (tokens before, nats per token): each bin at its upper end, if it
    has `FEWEST_TOKENS`.
    """
    split, rows = last_split(content.contexts)
    curves: dict[str, list[Point]] = {}
    for row in rows:
        before, tokens, cost = (number_of(row.get(key)) for key in ("context_to", "tokens", "nll_per_token"))
        if before and cost is not None and (tokens or 0) >= FEWEST_TOKENS:
            curves.setdefault(str(row.get("protocol")), []).append((before, cost))
    return split, {name: sorted(points) for name, points in curves.items()}


def composer_bars(content: ReportContent) -> tuple[str, list[Bar], list[str]]:
    """The split, a bar for each of the composers with the most notes, and how many performances it is of."""
    split, rows = last_split(content.composers)
    rows = sorted(rows, key=lambda row: -(number_of(row.get("notes")) or 0.0))[:MOST_COMPOSERS]
    bars, told = [], []
    for row in rows:
        value, low, high = (number_of(row.get(RESOLVED + end)) for end in ("", "_low", "_high"))
        count = number_of(row.get("performances"))
        if value is not None and count is not None:
            bars.append(Bar(str(row.get("composer")), split, value, low, high, is_ours=True))
            told.append(f"{count:.0f} performance" + ("" if count == 1 else "s"))
    return split, bars, told


def window_shares(content: ReportContent) -> dict[str, dict[str, float]]:
    """Layer -> window in tokens -> its share, if any layer has two windows or more; from short to long."""
    wanted: dict[float, dict[float, float]] = {}
    for row in content.windows:
        layer, share = number_of(row.get("layer")), number_of(row.get("share"))
        if layer is not None and share is not None:
            wanted.setdefault(layer, {})[number_of(row.get("window")) or math.inf] = share
    if all(len(shares) < 2 for shares in wanted.values()):
        return {}
    names = {window: f"{window:.0f}" for shares in wanted.values() for window in shares}
    names |= {math.inf: "all"} if math.inf in names else {}
    return {
        f"layer {layer:.0f}": {names[window]: shares[window] for window in sorted(names) if window in shares}
        for layer, shares in sorted(wanted.items())
    }
