"""The charts of the report with their headings, captions and text alternatives."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from coma_gen.report import charts
from coma_gen.report.content import (
    MAX_COMPOSERS,
    MIN_TOKENS,
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
    """One chart: file name, heading, caption, drawing, and a description for screen readers."""

    file: str
    heading: str
    caption: str
    drawing: Drawing
    description: str

    @property
    def svg(self) -> Markup:
        """The drawing as inline SVG; `svg.Drawing` escapes all text."""
        return Markup(self.drawing.to_svg(self.description))  # noqa: S704


def captioned_charts(content: ReportContent) -> list[Chart]:
    """Draws every chart whose figures are available."""
    charts = (
        _draw_learning_curve(content),
        _draw_scores(content),
        _draw_token_types(content),
        _draw_contexts(content),
        _draw_windows(content),
        _draw_composers(content),
    )
    return [chart for chart in charts if chart is not None]


def _draw_learning_curve(content: ReportContent) -> Chart | None:
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
    caption = f"Loss during training on {content.corpus_phrase}. The ring marks the best validation loss"
    caption += "; dashed lines are baselines on the validation split." if references else "."
    text = "Learning curve in nats per token: " + ", ".join(ends)
    return None if drawing is None else Chart("learning-curve.svg", "Learning curve", caption, drawing, text)


def _draw_scores(content: ReportContent) -> Chart | None:
    bars = score_bars(content)
    drawing = charts.bits_per_note(bars)
    has_interval = any(bar.low is not None for bar in bars)
    caption = (
        f"Code length of held-out music of {content.corpus_phrase} at a common resolution of 10 ms. "
        f"Lower is better{'; whiskers are 95% confidence intervals' if has_interval else ''}."
    )
    values = (f"{bar.model}, {bar.split}: {bar.value:.2f}" for bar in bars)
    text = "Bits per note at 10 ms: " + "; ".join(values)
    return None if drawing is None else Chart("bits-per-note.svg", "Bits per note", caption, drawing, text)


def _draw_token_types(content: ReportContent) -> Chart | None:
    split, types = token_types(content)
    drawing = charts.nll_by_type(types)
    caption = (
        "Nats per token by token type, and the contribution of each type to bits per note; "
        f"{split} split of {content.corpus_phrase}."
    )
    values = (f"{name}: {row['nll_per_token']:.3f}" for name, row in types.items())
    text = "Nats per token by type: " + "; ".join(values)
    return None if drawing is None else Chart("nll-by-type.svg", "Loss by token type", caption, drawing, text)


def _draw_contexts(content: ReportContent) -> Chart | None:
    split, curves = context_curves(content)
    drawing = nll_by_context(curves)
    caption = (
        "Nats per token by context length. Carried: context since the start of the performance (beginnings "
        "differ from middles); windowed: context within windows that start anywhere. Bins of fewer than "
        f"{MIN_TOKENS} tokens are omitted. {split.capitalize()} split of {content.corpus_phrase}."
    )
    values = (f"{name}, {before:.0f}: {nats:.3f}" for name, curve in curves.items() for before, nats in curve)
    text = "Nats per token by context tokens: " + "; ".join(values)
    return None if drawing is None else Chart("nll-by-context.svg", "Context length", caption, drawing, text)


def _draw_composers(content: ReportContent) -> Chart | None:
    split, bars, counts = composer_bars(content)
    drawing = charts.bits_by_composer(bars, counts)
    most = f" (the {MAX_COMPOSERS} with the most notes)" if len(bars) == MAX_COMPOSERS else ""
    caption = (
        f"Bits per note by composer{most}; {split} split of {content.corpus_phrase}. "
        "Whiskers are 95% confidence intervals over compositions, where there is more than one."
    )
    text = "Bits per note at 10 ms: " + "; ".join(f"{bar.model}: {bar.value:.2f}" for bar in bars)
    return None if drawing is None else Chart("bits-by-composer.svg", "Composers", caption, drawing, text)


def _draw_windows(content: ReportContent) -> Chart | None:
    shares = window_shares(content)
    drawing = charts.window_shares(shares)
    caption = (
        "Weight of each attention window in each layer: the softmax of the learned window logits. "
        "Dashed lines are the equal weights at initialization. "
        f"A window of n covers the n tokens before the current one. Trained on {content.corpus_phrase}."
    )
    values = (
        f"{layer}, {name} tokens: {share:.0%}" for layer, row in shares.items() for name, share in row.items()
    )
    text = "Weight of each window: " + "; ".join(values)
    return (
        None if drawing is None else Chart("window-shares.svg", "Attention windows", caption, drawing, text)
    )
