"""The head of the report: what was trained on what, and the few figures to know."""

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
    """What was trained on what, in a sentence."""
    parameters = content.number("train", "parameters")
    size = f" of {_rounded(parameters)} parameters" if parameters is not None else ""
    performances, hours = (
        sum(content.number("split", split, key) or 0.0 for split in ("train", "validation", "test"))
        for key in ("performances", "hours")
    )
    corpus = content.corpus_phrase
    if performances:
        corpus += f" ({figure(performances)} performances, {figure(hours, 3)} hours)"
    return f"A model{size} that continues piano music, trained on {corpus}."


def _rounded(number: float) -> str:
    for unit, name in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.3g}{name}"
    return figure(number)


def headline(content: ReportContent) -> list[Tile]:
    """The headline's figures, those that are there."""
    tiles = []
    value, low, high = (content.number("evaluate", "test", RESOLVED + end) for end in ("", "_low", "_high"))
    corpus = f"test split, {content.corpus_name}"
    if value is not None:
        interval = f"95%: {low:.1f} to {high:.1f}; " if low is not None and high is not None else ""
        tiles.append(Tile(f"{value:.1f}", "bits per note at 10 ms", interval + corpus))
    bigram = content.number("baseline", "test", "bigram", RESOLVED)
    if bigram is not None:
        tiles.append(Tile(f"{bigram:.1f}", "the same for a bigram", corpus))
    nats = content.number("evaluate", "test", "nll_per_token")
    if nats is not None:
        tiles.append(Tile(f"{nats:.3f}", "nats per token", corpus))
    illegal = content.number("sample", "illegal_probability")
    if illegal is not None:
        label = "of the probability falls on tokens that cannot follow"
        tiles.append(Tile(f"{illegal:.1%}", label, "generated music, before the grammar forbids them"))
    return tiles
