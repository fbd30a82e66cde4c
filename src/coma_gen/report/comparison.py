"""A page that compares two runs: differing settings, headline figures, loss curves and paired samples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from coma_gen.core.io import write_atomic
from coma_gen.report.content import ReportContent, curve_points
from coma_gen.report.curves import learning_curve
from coma_gen.report.gallery import Card, file_names, render_sample
from coma_gen.report.page import HERE, STYLE, render_page
from coma_gen.report.svg import CHART_STYLE
from coma_gen.report.tables import Table

LOSSES = {"Validation loss": "validation_nll", "Training loss": "train_loss"}
"""Heading -> column of the curve."""


@dataclass(frozen=True)
class Side:
    """One of the two runs; the page shows the curve and the samples of its content."""

    name: str
    content: ReportContent


@dataclass(frozen=True)
class Comparison:
    """The content of the page.

    Attributes:
        sides: The baseline, and the run compared with it.
        verdict: One sentence on which run is better, and with what confidence.
        params: Settings that differ.
        figures: Headline figures of both runs.
    """

    sides: tuple[Side, Side]
    verdict: str
    params: Table
    figures: Table


def build_comparison(path: Path, comparison: Comparison) -> None:
    """Writes the page, with all images and sounds embedded."""
    with tempfile.TemporaryDirectory(prefix="coma-gen-comparison-") as folder:
        pairs = _render_pairs(comparison.sides, Path(folder))
    page = render_page(
        "comparison.html.j2",
        sheets=(CHART_STYLE, STYLE, HERE / "comparison.css"),
        has_script=True,
        title=" and ".join(side.name for side in comparison.sides),
        comparison=comparison,
        charts=list(_draw_losses(comparison.sides)),
        pairs=pairs,
    )
    write_atomic(path, page)


def _draw_losses(sides: tuple[Side, Side]) -> Iterator[tuple[str, Markup]]:
    """Draws a chart for each loss with a line for each run."""
    first, second = sides
    for heading, column in LOSSES.items():
        points = [curve_points(side.content, column) for side in sides]
        drawing = learning_curve(points[0], points[1], {}, names=(first.name, second.name))
        if drawing is not None:
            ends = "; ".join(
                f"{side.name}: {found[-1][1]:.3g}" for side, found in zip(sides, points, strict=True) if found
            )
            yield heading, Markup(drawing.to_svg(f"{heading} in nats per token, at the end: {ends}"))  # noqa: S704


def _render_pairs(sides: tuple[Side, Side], folder: Path) -> list[Sequence[Card]]:
    """Renders the samples whose names occur in both runs, in pairs."""
    samples = [{sample.name: sample for sample in side.content.samples} for side in sides]
    names = [name for name in samples[0] if name in samples[1]]
    files = iter(file_names([f"{side.name}-{name}" for name in names for side in sides]))
    return [
        [
            render_sample(folder, side.content, replace(own[name], name=f"{side.name}: {name}"), next(files))
            for side, own in zip(sides, samples, strict=True)
        ]
        for name in names
    ]
