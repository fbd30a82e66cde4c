"""The head of the report: a one-sentence summary and the headline figures."""

from __future__ import annotations

from dataclasses import dataclass

from coma_gen.report.content import RESOLVED, ReportContent
from coma_gen.report.svg import figure


@dataclass(frozen=True)
class Tile:
    """One figure of the headline."""

    value: str
    name: str
    detail: str = ""


def summary(content: ReportContent) -> str:
    """Describes the model and its training corpus in one sentence."""
    parameters = content.number("train", "parameters")
    size = f" of {_abbreviate(parameters)} parameters" if parameters is not None else ""
    performances, hours = (
        sum(content.number("split", split, key) or 0.0 for split in ("train", "validation", "test"))
        for key in ("performances", "hours")
    )
    corpus = content.corpus_phrase
    if performances:
        corpus += f" ({figure(performances)} performances, {figure(hours, 3)} hours)"
    return f"A model{size} that continues piano music, trained on {corpus}."


def _abbreviate(number: float) -> str:
    for unit, name in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.3g}{name}"
    return figure(number)


def headline(content: ReportContent) -> list[Tile]:
    """Collects the headline figures that are available."""
    tiles = []
    value, low, high = (content.number("evaluate", "test", RESOLVED + end) for end in ("", "_low", "_high"))
    corpus = f"test split, {content.corpus_name}"
    if value is not None:
        interval = f"95% CI {low:.1f} to {high:.1f}; " if low is not None and high is not None else ""
        tiles.append(Tile(f"{value:.1f}", "bits per note at 10 ms", interval + corpus))
    bigram = content.number("baseline", "test", "bigram", RESOLVED)
    if bigram is not None:
        tiles.append(Tile(f"{bigram:.1f}", "bits per note, bigram baseline", corpus))
    nats = content.number("evaluate", "test", "nll_per_token")
    if nats is not None:
        tiles.append(Tile(f"{nats:.3f}", "nats per token", corpus))
    illegal = content.number("sample", "illegal_probability")
    if illegal is not None:
        label = "of the probability is on invalid tokens"
        tiles.append(Tile(f"{illegal:.1%}", label, "generated music, before the grammar masks them"))
    return tiles
