"""The figures of a report as tables of text for people."""

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
    "illegal_probability": "probability of tokens that cannot follow",
    "longest_notes_of_as_many": "longest notes, expected of as many",
    "compositions_in_two_splits": "compositions found in two splits",
}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: what it shows.
        head: the columns' names; the first column names the rows.
        rows: cells, as many as there are columns.
        strong: indices of the rows that stand out.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: Sequence[int] = ()


def words(key: str) -> str:
    """A key of a metrics file in words."""
    return NAMES.get(key, key.replace("_", " "))


def shown(value: Any) -> str:
    """Any plain value as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if is_number(value):
        short = figure(float(value), 4)
        return figure(float(value)) if short in ("1", "-1") else short
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return str(value)


def flat(value: Any, *, name: str = "") -> Iterable[tuple[str, str]]:
    """Every leaf of nested mappings as (path of keys, text), in the order of the file."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, name=f"{name} · {words(str(key))}" if name else words(str(key)))
    else:
        yield name, shown(value)


def listing(caption: str, head: tuple[str, str], value: Any) -> Table | None:
    """A table of two columns with every leaf of `value`."""
    rows = list(flat(value)) if isinstance(value, Mapping) else []
    return Table(caption, head, rows) if rows else None


def score_table(content: ReportContent) -> Table | None:
    """Baselines and model below each other: the figure to compare for both splits, the others for test."""
    found = scores(content)
    models = list(dict.fromkeys(model for model, _, _ in found))
    by_model_split = {(model, split): figures for model, split, figures in found}
    others = (("bits_per_note", 2), ("bits_per_second", 1), ("nll_per_token", 3), ("perplexity", 2))
    rows = []
    for model in models:
        test = by_model_split.get((model, "test"), {})
        resolved = (_with_interval(by_model_split.get((model, split), {})) for split in SPLITS)
        rows.append((words(model), *resolved, *(_fixed(test.get(key), digits) for key, digits in others)))
    head = (
        "model",
        *(f"{split}: bits per note at 10 ms" for split in SPLITS),
        *(f"test: {words(key)}" for key, _ in others),
    )
    has_interval = any("[" in cell for row in rows for cell in row)
    brackets = "; brackets are 95% confidence over compositions" if has_interval else ""
    caption = f"Held-out music of {content.corpus_phrase}. Less is better{brackets}."
    return Table(caption, head, rows, [models.index(OURS)] if OURS in models else []) if rows else None


def _with_interval(figures: Metrics) -> str:
    value, low, high = (number_of(figures.get(RESOLVED + end)) for end in ("", "_low", "_high"))
    interval = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
    return _fixed(value, 2) + (interval if value is not None else "")


def _fixed(value: Any, digits: int) -> str:
    """A number with a fixed number of decimals, so that a column lines up."""
    number = number_of(value)
    return "–" if number is None else f"{number:,.{digits}f}"


def split_table(content: ReportContent) -> Table | None:
    """What each split holds, before and after tokenizing."""
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
            rows.append((split, *map(_fixed, cells, digits)))
    head = ("split", *(name for name, _, _, _ in columns))
    return Table(f"The splits of {content.corpus_phrase}.", head, rows) if rows else None


def split_remarks(content: ReportContent) -> list[str]:
    """What was left out of the splits or found in two of them, as sentences."""
    remarks = []
    unreadable = content.find("split", "unreadable")
    if isinstance(unreadable, Mapping) and is_number(unreadable.get("performances")):
        reasons = unreadable.get("reasons") or {}
        told = "".join(f"; {reason}: {shown(number)}" for reason, number in flat(reasons) if reason)
        remarks.append(f"Unreadable files: {shown(unreadable['performances'])}{told}.")
    elif isinstance(unreadable, Mapping):
        reasons = [f"{reason}: {shown(number)}" for reason, number in flat(unreadable)]
        remarks.append("Unreadable files: " + ("; ".join(reasons) if reasons else "none") + ".")
    elif is_number(unreadable):
        remarks.append(f"Unreadable files: {shown(unreadable)}.")
    twice = content.find("split", "compositions_in_two_splits")
    if twice is not None and not isinstance(twice, Mapping):
        remarks.append(
            f"Compositions found in two splits: {shown(twice) if is_number(twice) else len(twice)}."
        )
    return remarks


def fidelity_table(content: ReportContent) -> Table | None:
    """What the way into tokens and back does to the music of each split that it was measured on."""
    measured = content.find("fit_tokenizer", "fidelity")
    if not isinstance(measured, Mapping):
        return None
    by_split = {str(split): dict(flat(of)) for split, of in measured.items() if isinstance(of, Mapping)}
    names = dict.fromkeys(name for of in by_split.values() for name in of)
    rows = [(name, *(of.get(name, "–") for of in by_split.values())) for name in names]
    size = content.number("fit_tokenizer", "vocab_size")
    caption = f"What tokens keep of the music of {content.corpus_phrase}"
    caption += f"; a vocabulary of {figure(size)}." if size is not None else "."
    return Table(caption, ("measure", *by_split), rows) if rows else None


def music_table(content: ReportContent) -> Table | None:
    """Measures of the generated music beside real music, and how far real music is from itself."""
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
                words(str(name)),
                *(shown(mean.get(key)) for key in ("samples", "train", "test")),
                *(_fixed(overlap.get(key), 2) for key in ("with_train", "with_test")),
                f"{_fixed(overlap.get('of_real'), 2)} (5%: {_fixed(overlap.get('of_real_low'), 2)})",
                *(_fixed(divergence.get(key), 2) for key in ("from_train", "from_test")),
                f"{_fixed(divergence.get('of_real'), 2)} (95%: {_fixed(divergence.get('of_real_high'), 2)})",
            )
        )
    head = ["measure", "generated", "train", "test"]
    head += ["overlap with train", "with test", "of train with test"]
    head += ["divergence from train", "from test", "of train from test"]
    return Table(_music_caption(content), head, rows) if rows else None


FEW_SAMPLES = 20
"""Fewer than so many say little."""


def _music_caption(content: ReportContent) -> str:
    """What was held against what, and how many."""
    count, seconds = content.number("sample", "samples"), content.number("sample", "excerpts", "seconds")
    train, test = (content.number("sample", "excerpts", split) for split in ("train", "test"))
    numbers = (count, seconds, train, test)
    caption = f"What the generated music is like, beside real music of {content.corpus_phrase}"
    if None not in numbers:
        samples, length, ours, theirs = (figure(number) for number in numbers if number is not None)
        caption += f": {samples} samples, {ours} excerpts of train and {theirs} of test, of {length} s each"
    at_a_time = content.number("sample", "excerpts", "at_a_time")
    sets = f", {figure(at_a_time)} pieces of each at a time" if at_a_time else ""
    caption += f". The last column of three is the noise floor, real music against real music{sets}."
    if count is not None and count < FEW_SAMPLES:
        caption += " So few samples say little."
    return caption


def memorization_table(content: ReportContent) -> Table | None:
    """The longest passages that samples and test share with the train split."""
    found = content.find("sample", "memorization")
    if not isinstance(found, Mapping):
        return None
    by_set = {str(name): of for name, of in found.items() if isinstance(of, Mapping)}
    names = list(dict.fromkeys(str(name) for of in by_set.values() for name in of))
    rows = [(words(name), *(shown(of.get(name)) for of in by_set.values())) for name in names]
    caption = (
        f"Notes in a row that the train split of {content.corpus_phrase} has too, at any pitch: "
        "of the samples, and of excerpts that the model has not seen."
    )
    return Table(caption, ("longest passage", *by_set), rows) if rows else None


def performance_tables(content: ReportContent) -> list[Table]:
    """What each held-out performance costs, the dearest first: a table for each split."""
    tables = []
    for split in reversed(SPLITS):
        pieces = [piece for piece in content.performances if piece.get("split") == split]
        pieces.sort(key=lambda piece: -(number_of(piece.get(RESOLVED)) or 0.0))
        rows = [
            (
                f"{piece.get('composer', '')}, {piece.get('title', '')}",
                _fixed(piece.get("notes"), 0),
                _fixed(piece.get(RESOLVED), 2),
            )
            for piece in pieces
        ]
        caption = f"Each performance of the {split} split of {content.corpus_phrase}"
        if rows:
            tables.append(Table(caption, ("performance", "notes", words(RESOLVED)), rows))
    return tables
