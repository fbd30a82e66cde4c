"""The figures of a report as formatted tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coma_gen.report.content import (
    ALL_SPLITS,
    OURS,
    RESOLVED,
    SPLITS,
    Metrics,
    ReportContent,
    is_number,
    number_of,
    scores,
)
from coma_gen.report.svg import figure

NAMES = {
    "nll_per_token": "nats per token",
    "perplexity": "perplexity",
    "bits_per_note": "bits per note",
    "bits_per_second": "bits per second",
    RESOLVED: "bits per note at 10 ms",
    "vocab_size": "vocabulary",
    "train_loss": "training loss",
    "validation_nll": "validation nats per token",
    "inter_onset": "seconds between onsets",
    "illegal_probability": "probability of invalid tokens",
    "longest_notes_of_as_many": "longest notes, expected for as many",
    "compositions_in_two_splits": "compositions in two splits",
}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: Caption of the table.
        head: Column names; the first column contains the row names.
        rows: Cells of each row, one per column.
        strong: Indices of the highlighted rows.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: Sequence[int] = ()


def readable(key: str) -> str:
    """The display name of a key of a metrics file."""
    return NAMES.get(key, key.replace("_", " "))


def format_value(value: Any) -> str:
    """Formats any plain value as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if is_number(value):
        short = figure(float(value), 4)
        return figure(float(value)) if short in ("1", "-1") else short
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value)) or "none"
    return str(value)


def flatten(value: Any, *, name: str = "") -> Iterable[tuple[str, str]]:
    """Yields every leaf of nested mappings as (path of keys, text), in the order of the file."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, name=f"{name} · {readable(str(key))}" if name else readable(str(key)))
    else:
        yield name, format_value(value)


def list_values(caption: str, head: tuple[str, str], value: Any) -> Table | None:
    """Builds a table of two columns with every leaf of `value`."""
    rows = list(flatten(value)) if isinstance(value, Mapping) else []
    return Table(caption, head, rows) if rows else None


def score_table(content: ReportContent) -> Table | None:
    """Builds the score table: bits per note at 10 ms on both splits, other scores on the test split."""
    found = scores(content)
    models = list(dict.fromkeys(model for model, _, _ in found))
    by_model_split = {(model, split): figures for model, split, figures in found}
    others = (("bits_per_note", 2), ("bits_per_second", 1), ("nll_per_token", 3), ("perplexity", 2))
    rows = []
    for model in models:
        test = by_model_split.get((model, "test"), {})
        resolved = (_format_interval(by_model_split.get((model, split), {})) for split in SPLITS)
        rows.append(
            (readable(model), *resolved, *(_format_fixed(test.get(key), digits) for key, digits in others))
        )
    head = (
        "model",
        *(f"{split}: bits per note at 10 ms" for split in SPLITS),
        *(f"test: {readable(key)}" for key, _ in others),
    )
    has_interval = any("[" in cell for row in rows for cell in row)
    brackets = "; brackets are 95% confidence intervals over compositions" if has_interval else ""
    caption = f"Held-out music of {content.corpus_phrase}. Lower is better{brackets}."
    return Table(caption, head, rows, [models.index(OURS)] if OURS in models else []) if rows else None


def _format_interval(figures: Metrics) -> str:
    value, low, high = (number_of(figures.get(RESOLVED + end)) for end in ("", "_low", "_high"))
    interval = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
    return _format_fixed(value, 2) + (interval if value is not None else "")


def _format_fixed(value: Any, digits: int) -> str:
    """Formats a number with a fixed number of decimals, so that a column aligns."""
    number = number_of(value)
    return "–" if number is None else f"{number:,.{digits}f}"


def split_table(content: ReportContent) -> Table | None:
    """Builds the table of split sizes, before and after tokenization."""
    columns = (
        ("performances", "split", "performances", 0),
        ("hours", "split", "hours", 2),
        ("notes", "split", "notes", 0),
        ("tokens", "shard", "tokens", 0),
    )
    rows = []
    for split in ALL_SPLITS:
        cells = [content.number(stage, split, key) for _, stage, key, _ in columns]
        if any(cell is not None for cell in cells):
            digits = (decimals for _, _, _, decimals in columns)
            rows.append((split, *map(_format_fixed, cells, digits)))
    head = ("split", *(name for name, _, _, _ in columns))
    return Table(f"The splits of {content.corpus_phrase}.", head, rows) if rows else None


def split_remarks(content: ReportContent) -> list[str]:
    """Reports unreadable files and compositions that occur in two splits, as sentences."""
    remarks = []
    unreadable = content.find("split", "unreadable")
    if isinstance(unreadable, Mapping) and is_number(unreadable.get("performances")):
        reasons = flatten(unreadable.get("reasons") or {})
        by_reason = "".join(f"; {reason}: {number}" for reason, number in reasons if reason)
        remarks.append(f"Unreadable files: {format_value(unreadable['performances'])}{by_reason}.")
    elif isinstance(unreadable, Mapping):
        counts = [f"{reason}: {number}" for reason, number in flatten(unreadable)]
        remarks.append("Unreadable files: " + ("; ".join(counts) if counts else "none") + ".")
    elif is_number(unreadable):
        remarks.append(f"Unreadable files: {format_value(unreadable)}.")
    twice = content.find("split", "compositions_in_two_splits")
    if twice is not None and not isinstance(twice, Mapping):
        count = format_value(twice) if is_number(twice) else len(twice)
        remarks.append(f"Compositions in two splits: {count}.")
    return remarks


def fidelity_table(content: ReportContent) -> Table | None:
    """Builds the table of tokenizer round-trip errors for each split that they were measured on."""
    measured = content.find("fit_tokenizer", "fidelity")
    if not isinstance(measured, Mapping):
        return None
    by_split = {
        str(split): dict(flatten(values)) for split, values in measured.items() if isinstance(values, Mapping)
    }
    names = dict.fromkeys(name for values in by_split.values() for name in values)
    rows = [(name, *(values.get(name, "–") for values in by_split.values())) for name in names]
    size = content.number("fit_tokenizer", "vocab_size")
    caption = f"Tokenizer round trip: how accurately tokens represent the music of {content.corpus_phrase}"
    caption += f"; vocabulary of {figure(size)}." if size is not None else "."
    return Table(caption, ("measure", *by_split), rows) if rows else None


def music_table(content: ReportContent) -> Table | None:
    """Builds the table that compares generated with real music, and real music with itself (noise floor)."""
    measures = content.find("sample", "music")
    if not isinstance(measures, Mapping):
        return None
    rows = []
    for name, of in measures.items():
        mean, overlap, divergence = (
            part if isinstance(part := of.get(kind), Mapping) else {}
            for kind in ("mean", "overlap", "divergence")
        )
        rows.append(
            (
                readable(str(name)),
                *(format_value(mean.get(key)) for key in ("samples", "train", "test")),
                *(_format_fixed(overlap.get(key), 2) for key in ("with_train", "with_test")),
                _format_bound(overlap, "of_real_low", "5%"),
                *(_format_fixed(divergence.get(key), 2) for key in ("from_train", "from_test")),
                _format_bound(divergence, "of_real_high", "95%"),
            )
        )
    head = ["measure", "generated", "train", "test"]
    head += ["overlap with train", "with test", "of train with test"]
    head += ["divergence from train", "from test", "of train from test"]
    return Table(_compose_music_caption(content), head, rows) if rows else None


def _format_bound(figures: Metrics, key: str, percentile: str) -> str:
    """Formats a real-against-real figure with the percentile that bounds it."""
    return f"{_format_fixed(figures.get('of_real'), 2)} ({percentile}: {_format_fixed(figures.get(key), 2)})"


FEW_SAMPLES = 20
"""With fewer samples, the caption warns that the figures are unreliable."""


def _compose_music_caption(content: ReportContent) -> str:
    """Composes the caption of the music table: what was compared, and the numbers of samples."""
    count, seconds = content.number("sample", "samples"), content.number("sample", "excerpts", "seconds")
    train, test = (content.number("sample", "excerpts", split) for split in ("train", "test"))
    numbers = (count, seconds, train, test)
    caption = f"Generated music compared with real music of {content.corpus_phrase}"
    if None not in numbers:
        samples, length, ours, theirs = (figure(number) for number in numbers if number is not None)
        caption += f": {samples} samples, {ours} excerpts of train and {theirs} of test, of {length} s each"
    at_a_time = content.number("sample", "excerpts", "at_a_time")
    sets = f", {figure(at_a_time)} pieces of each at a time" if at_a_time else ""
    caption += f". The last column of each group of three is the noise floor: real against real music{sets}."
    if count is not None and count < FEW_SAMPLES:
        caption += f" With fewer than {FEW_SAMPLES} samples, these figures are unreliable."
    return caption


def memorization_table(content: ReportContent) -> Table | None:
    """Builds the table of the longest passages that samples and the test split share with the train split."""
    found = content.find("sample", "memorization")
    if not isinstance(found, Mapping):
        return None
    by_set = {str(name): figures for name, figures in found.items() if isinstance(figures, Mapping)}
    names = list(dict.fromkeys(str(name) for figures in by_set.values() for name in figures))
    rows = [
        (readable(name), *(format_value(figures.get(name)) for figures in by_set.values())) for name in names
    ]
    caption = (
        f"Longest runs of consecutive notes that also occur in the train split of {content.corpus_phrase}, "
        "in any transposition: in the samples, and in excerpts that the model has not seen."
    )
    return Table(caption, ("longest passage", *by_set), rows) if rows else None


def performance_tables(content: ReportContent) -> list[Table]:
    """Builds a table for each held-out split with bits per note of each performance, highest first."""
    tables = []
    for split in reversed(SPLITS):
        pieces = [piece for piece in content.performances if piece.get("split") == split]
        pieces.sort(key=lambda piece: -(number_of(piece.get(RESOLVED)) or 0.0))
        rows = [
            (
                f"{piece.get('composer', '')}, {piece.get('title', '')}",
                _format_fixed(piece.get("notes"), 0),
                _format_fixed(piece.get(RESOLVED), 2),
            )
            for piece in pieces
        ]
        caption = f"Each performance of the {split} split of {content.corpus_phrase}"
        if rows:
            tables.append(Table(caption, ("performance", "notes", readable(RESOLVED)), rows))
    return tables
