"""The line charts of the report: the learning curve and loss by context length.

Each function takes plain numbers and returns a `Drawing`, or None if there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from coma_gen.report.charts import WIDTH
from coma_gen.report.svg import Drawing, Point, spread, ticks

KINDS = ("made", "given")
"""CSS classes of the first and the second line of a chart."""


def learning_curve(
    train: Sequence[Point],
    validation: Sequence[Point],
    references: Mapping[str, float],
    names: tuple[str, str] = ("training", "validation"),
) -> Drawing | None:
    """Draws nats per token against optimizer steps.

    Args:
        train: (step, training loss).
        validation: (step, loss over the whole validation split); a ring marks the best.
        references: Name -> validation nats per token of a baseline, drawn as a dashed line.
        names: Labels of the two lines, which may also be the same loss of two runs.
    """
    if not train and not validation:
        return None
    values = [y for _, y in (*train, *validation)] + list(references.values())
    levels = ticks(min(values), max(values), 5)
    last = max(x for x, _ in (*train, *validation))
    left, right, top, bottom = 44.0, WIDTH - 88.0, 30.0, 276.0
    drawing = Drawing(WIDTH, 322.0)

    def to_point(point: Point) -> Point:
        share = (point[1] - levels[0]) / (levels[-1] - levels[0])
        return left + point[0] / max(last, 1e-9) * (right - left), bottom - share * (bottom - top)

    drawing.text((2, 14), "nats per token")
    for level in levels:
        y = to_point((0, level))[1]
        drawing.line((left, y), (right, y), "grid")
        drawing.text((left - 8, y + 4), f"{level:g}", anchor="end")
    for step in (tick for tick in ticks(0, last, 5) if tick <= last):
        x = to_point((step, levels[0]))[0]
        drawing.text((x, bottom + 19), f"{int(step):,}", anchor="middle")
    drawing.line((left, bottom), (right, bottom), "axis")
    drawing.text(((left + right) / 2, bottom + 40), "optimizer step", anchor="middle")
    labels = [(name, to_point((last, value))[1], "label") for name, value in references.items()]
    for _, y, _ in labels:
        drawing.line((left, y), (right, y), "reference")
    for name, points, kind in zip(names, (train, validation), ("given", "made"), strict=True):
        if points:
            drawing.path(map(to_point, points), kind)
            labels.append((name, to_point(points[-1])[1], kind))
    for point in validation:
        drawing.dot(to_point(point), 3.4, "made")
    if validation:
        drawing.dot(to_point(min(validation, key=lambda point: point[1])), 7.0, "best")
    heights = spread([y for _, y, _ in labels], 16.0, top, bottom)
    for (name, _, kind), y in zip(labels, heights, strict=True):
        drawing.text((right + 9, y + 4), name, kind)
    return drawing


def nll_by_context(curves: Mapping[str, Sequence[Point]]) -> Drawing | None:
    """Draws nats per token against context length in tokens, on a logarithmic axis.

    Args:
        curves: Name -> points (context tokens, nats per token), ascending. The first curve is emphasized.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return None
    levels = ticks(min(y for _, y in points), max(y for _, y in points), 5)
    doublings = max(1.0, math.log2(max(x for x, _ in points)))
    left, right, top, bottom = 44.0, WIDTH - 88.0, 30.0, 276.0
    drawing = Drawing(WIDTH, 322.0)

    def to_point(point: Point) -> Point:
        share = (point[1] - levels[0]) / (levels[-1] - levels[0])
        return left + math.log2(point[0]) / doublings * (right - left), bottom - share * (bottom - top)

    drawing.text((2, 14), "nats per token")
    for level in levels:
        y = to_point((1, level))[1]
        drawing.line((left, y), (right, y), "grid")
        drawing.text((left - 8, y + 4), f"{level:g}", anchor="end")
    for power in range(0, int(doublings) + 1, 1 + int(doublings) // 7):
        drawing.text((to_point((2**power, levels[0]))[0], bottom + 19), f"{2**power:,}", anchor="middle")
    drawing.line((left, bottom), (right, bottom), "axis")
    drawing.text(((left + right) / 2, bottom + 40), "context tokens", anchor="middle")
    drawn = {
        name: (list(map(to_point, curve)), kind)
        for (name, curve), kind in zip(curves.items(), KINDS, strict=False)
        if curve
    }
    for curve, kind in reversed(list(drawn.values())):
        drawing.path(curve, kind)
        for point in curve:
            drawing.dot(point, 3.0, kind)
    heights = spread([curve[-1][1] for curve, _ in drawn.values()], 16.0, top, bottom)
    for (name, (_, kind)), y in zip(drawn.items(), heights, strict=True):
        drawing.text((right + 9, y + 4), name, kind)
    return drawing
