"""The charts of the report, each with its heading, its caption, and the words for who cannot see it."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from coma_gen.report import charts
from coma_gen.report.content import (
    FEWEST_TOKENS,
    MOST_COMPOSERS,
    ReportContent,
    composer_bars,
    context_curves,
    curve_points,
    score_bars,
    token_types,
    window_shares,
)
from coma_gen.report.curves import learning_curve, nll_by_context
from coma_gen.report.svg import Drawing


@dataclass(frozen=True)
class Chart:
    """One chart: its file's name, heading, picture, and the words for who cannot see it."""

    file: str
    heading: str
    caption: str
    drawing: Drawing
    description: str

    @property
    def svg(self) -> Markup:
        """The picture as part of the page; `svg.Drawing` escapes every text in it."""
        return Markup(self.drawing.to_svg(self.description))  # noqa: S704


def captioned_charts(content: ReportContent) -> list[Chart]:
    """The charts that there are figures for."""
    wanted = (
        _learning(content),
        _comparison(content),
        _difficulty(content),
        _context(content),
        _windows(content),
        _composers(content),
    )
    return [chart for chart in wanted if chart is not None]


def _learning(content: ReportContent) -> Chart | None:
    curves = {
        name: curve_points(content, column)
        for name, column in (("training", "train_loss"), ("validation", "validation_nll"))
    }
    baselines = ("bigram", "unigram")
    found = {name: content.number("baseline", "validation", name, "nll_per_token") for name in baselines}
    references = {name: value for name, value in found.items() if value is not None}
    drawing = learning_curve(curves["training"], curves["validation"], references)
    ends = (
        f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in curves.items() if points
    )
    caption = f"Loss while training on {content.corpus_phrase}. The ring marks the best validation"
    caption += "; dashes are baselines on the validation split." if references else "."
    spoken = "Learning curve in nats per token: " + ", ".join(ends)
    return None if drawing is None else Chart("learning-curve.svg", "Learning", caption, drawing, spoken)


def _comparison(content: ReportContent) -> Chart | None:
    bars = score_bars(content)
    drawing = charts.bits_per_note(bars)
    has_interval = any(bar.low is not None for bar in bars)
    caption = (
        f"Code length of held-out music of {content.corpus_phrase} at a common resolution of 10 ms. "
        f"Shorter is better{'; whiskers are 95% confidence' if has_interval else ''}."
    )
    told = (f"{bar.model}, {bar.split}: {bar.value:.2f}" for bar in bars)
    spoken = "Bits per note at 10 ms: " + "; ".join(told)
    return None if drawing is None else Chart("bits-per-note.svg", "Bits per note", caption, drawing, spoken)


def _difficulty(content: ReportContent) -> Chart | None:
    split, types = token_types(content)
    drawing = charts.nll_by_type(types)
    caption = (
        "Nats per token by token type, and what each type adds to the bits of a note; "
        f"{split} split of {content.corpus_phrase}."
    )
    told = (f"{name}: {row['nll_per_token']:.3f}" for name, row in types.items())
    spoken = "Nats per token by type: " + "; ".join(told)
    return None if drawing is None else Chart("nll-by-type.svg", "What is hard", caption, drawing, spoken)


def _context(content: ReportContent) -> Chart | None:
    split, curves = context_curves(content)
    drawing = nll_by_context(curves)
    caption = (
        "Nats per token by how many tokens the model saw before: carried, since the start of the performance "
        "(beginnings are unlike middles); windowed, within windows that start anywhere. Places with fewer "
        f"than {FEWEST_TOKENS} tokens are left out. {split.capitalize()} split of {content.corpus_phrase}."
    )
    told = (f"{name}, {before:.0f}: {nats:.3f}" for name, curve in curves.items() for before, nats in curve)
    spoken = "Nats per token by tokens before: " + "; ".join(told)
    return None if drawing is None else Chart("nll-by-context.svg", "Context", caption, drawing, spoken)


def _composers(content: ReportContent) -> Chart | None:
    split, bars, told = composer_bars(content)
    drawing = charts.bits_by_composer(bars, told)
    most = f", of the {MOST_COMPOSERS} with the most notes" if len(bars) == MOST_COMPOSERS else ""
    caption = (
        f"What a note of each composer costs{most}; {split} split of {content.corpus_phrase}. "
        "Whiskers are 95% confidence over compositions, where there is more than one."
    )
    spoken = "Bits per note at 10 ms: " + "; ".join(f"{bar.model}: {bar.value:.2f}" for bar in bars)
    return None if drawing is None else Chart("bits-by-composer.svg", "Composers", caption, drawing, spoken)


def _windows(content: ReportContent) -> Chart | None:
    shares = window_shares(content)
    drawing = charts.window_shares(shares)
    caption = (
        "How much each layer of the model listens to each of its windows: the softmax of its scale weights. "
        "Dashes are equal shares, which training starts from. "
        f"A window is so many tokens before the current one. Trained on {content.corpus_phrase}."
    )
    told = (
        f"{layer}, {name} tokens: {share:.0%}" for layer, row in shares.items() for name, share in row.items()
    )
    spoken = "Share of each window: " + "; ".join(told)
    return None if drawing is None else Chart("window-shares.svg", "Windows", caption, drawing, spoken)
