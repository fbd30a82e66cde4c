"""The charts of the report: how it learned, how good it is, and what it finds hard.

Each function takes plain numbers and returns a `Drawing`, or None where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coma_gen.render.svg import Drawing, Point, spread, ticks

WIDTH = 460.0
ROW = 19.0
KINDS = ("made", "given")
"""How the first line of a chart is drawn, and the second."""
MOST_LETTERS = 26
"""Of a composer's name."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure of the bits-per-note chart.

    Attributes:
        model: whose figure it is.
        split: on what it was measured.
        value: bits per note at 10 ms.
        low: lower end of the 95% confidence interval, or None.
        high: upper end.
        is_ours: whether it is the model that the report is about.
    """

    model: str
    split: str
    value: float
    low: float | None = None
    high: float | None = None
    is_ours: bool = False


def learning_curve(
    train: Sequence[Point], validation: Sequence[Point], references: Mapping[str, float]
) -> Drawing | None:
    """Nats per token against optimizer steps.

    Args:
        train: (step, training loss).
        validation: (step, loss over the whole validation split); the best is ringed.
        references: name -> validation nats per token of a baseline, drawn as a dashed line.
    """
    if not train and not validation:
        return None
    values = [y for _, y in (*train, *validation)] + list(references.values())
    levels = ticks(min(values), max(values), 5)
    last = max(x for x, _ in (*train, *validation))
    left, right, top, bottom = 44.0, WIDTH - 88.0, 30.0, 276.0
    drawing = Drawing(WIDTH, 322.0)

    def place(point: Point) -> Point:
        share = (point[1] - levels[0]) / (levels[-1] - levels[0])
        return left + point[0] / max(last, 1e-9) * (right - left), bottom - share * (bottom - top)

    drawing.text((2, 14), "nats per token")
    for level in levels:
        y = place((0, level))[1]
        drawing.line((left, y), (right, y), "grid")
        drawing.text((left - 8, y + 4), f"{level:g}", anchor="end")
    for step in (tick for tick in ticks(0, last, 5) if tick <= last):
        x = place((step, levels[0]))[0]
        drawing.text((x, bottom + 19), f"{int(step):,}", anchor="middle")
    drawing.line((left, bottom), (right, bottom), "axis")
    drawing.text(((left + right) / 2, bottom + 40), "optimizer step", anchor="middle")
    labels = [(name, place((last, value))[1], "label") for name, value in references.items()]
    for _, y, _ in labels:
        drawing.line((left, y), (right, y), "reference")
    for name, points, kind in (("training", train, "given"), ("validation", validation, "made")):
        if points:
            drawing.path(map(place, points), kind)
            labels.append((name, place(points[-1])[1], kind))
    for point in validation:
        drawing.dot(place(point), 3.4, "made")
    if validation:
        drawing.dot(place(min(validation, key=lambda point: point[1])), 7.0, "best")
    heights = spread([y for _, y, _ in labels], 16.0, top, bottom)
    for (name, _, kind), y in zip(labels, heights, strict=True):
        drawing.text((right + 9, y + 4), name, kind)
    return drawing


def bits_per_note(bars: Sequence[Bar]) -> Drawing | None:
    """Bits per note at 10 ms: a group for each model, a bar for each split; the shorter the better.

    Args:
        bars: in the order they are drawn; equal models side by side. Bars of the last split are the strong
            ones.
    """
    if not bars:
        return None
    splits = list(dict.fromkeys(bar.split for bar in bars))
    models = list(dict.fromkeys(bar.model for bar in bars))
    left, right, top = 92.0, WIDTH - 62.0, 34.0
    levels = ticks(0.0, max(max(bar.value, bar.high or 0.0) for bar in bars), 7)
    group = ROW * len(splits) + 16.0
    bottom = top + group * len(models)
    drawing = Drawing(WIDTH, bottom + 44.0)

    def x_of(value: float) -> float:
        return left + value / levels[-1] * (right - left)

    for level in levels:
        drawing.line((x_of(level), top), (x_of(level), bottom), "grid")
        drawing.text((x_of(level), bottom + 18), f"{level:g}", anchor="middle")
    drawing.text(((left + right) / 2, bottom + 38), "bits per note at 10 ms", anchor="middle")
    _legend(drawing, left, splits)
    for row, model in enumerate(models):
        begin = top + row * group + 8.0
        of_model = [bar for bar in bars if bar.model == model]
        drawing.text((left - 10, begin + ROW * len(splits) / 2 + 4), model, "name", anchor="end")
        for bar in of_model:
            y = begin + ROW * splits.index(bar.split)
            kind = ("made" if bar.is_ours else "plain") + ("" if bar.split == splits[-1] else "-soft")
            drawing.bar(left, y, x_of(bar.value) - left, ROW - 2.0, kind)
            end = max(x_of(bar.value), _whisker(drawing, bar, x_of, y + ROW / 2 - 1.0))
            drawing.text((end + 7, y + ROW / 2 + 3.5), f"{bar.value:.1f}", "value")
    drawing.line((left, top), (left, bottom), "axis")
    return drawing


def _legend(drawing: Drawing, left: float, splits: Sequence[str]) -> None:
    """Which shade is which split."""
    at = left
    for split in splits:
        drawing.bar(at, 6.0, 12.0, 12.0, "plain" if split == splits[-1] else "plain-soft")
        drawing.text((at + 18, 16), split)
        at += 34.0 + 7.2 * len(split)


def _whisker(drawing: Drawing, bar: Bar, x_of: Callable[[float], float], y: float) -> float:
    """Draws the confidence interval, where there is one, and returns its right end."""
    if bar.low is None or bar.high is None:
        return 0.0
    low, high = x_of(bar.low), x_of(bar.high)
    drawing.line((low, y), (high, y), "whisker")
    for end in (low, high):
        drawing.line((end, y - 4.0), (end, y + 4.0), "whisker")
    return high


def nll_by_type(types: Mapping[str, Mapping[str, float]]) -> Drawing | None:
    """Nats per token of each token type, and what it adds to a note's bits.

    Args:
        types: token type -> its figures, of which nll_per_token is drawn and bits_per_note, where it is
            there, told.
    """
    rows = [(name, row["nll_per_token"], row.get("bits_per_note")) for name, row in types.items()]
    if not rows:
        return None
    rows.sort(key=lambda row: (-(row[2] or 0.0), -row[1], row[0]))
    left, right, top, group = 92.0, WIDTH - 152.0, 8.0, 30.0
    levels = ticks(0.0, max(row[1] for row in rows), 4)
    bottom = top + group * len(rows)
    drawing = Drawing(WIDTH, bottom + 44.0)
    reach = (right - left) / levels[-1]
    for level in levels:
        drawing.line((left + level * reach, top), (left + level * reach, bottom), "grid")
        drawing.text((left + level * reach, bottom + 18), f"{level:g}", anchor="middle")
    drawing.text(((left + right) / 2, bottom + 38), "nats per token", anchor="middle")
    for index, (name, nats, bits) in enumerate(rows):
        y = top + index * group + 6.0
        drawing.text((left - 10, y + 13), name, "name", anchor="end")
        drawing.bar(left, y, nats * reach, group - 12.0, "made")
        value = f"{nats:.2f}"
        drawing.text((left + nats * reach + 7, y + 13), value, "value")
        if bits is not None:
            drawing.text((WIDTH, y + 13), f"{bits:.2f} bits/note", "lesser", anchor="end")
    drawing.line((left, top), (left, bottom), "axis")
    return drawing


def nll_by_context(curves: Mapping[str, Sequence[Point]]) -> Drawing | None:
    """Nats per token against how many tokens the model saw before, on an axis that doubles.

    Args:
        curves: name -> (tokens before, nats per token), rising; the first curve is the strong one.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return None
    levels = ticks(min(y for _, y in points), max(y for _, y in points), 5)
    doublings = max(1.0, math.log2(max(x for x, _ in points)))
    left, right, top, bottom = 44.0, WIDTH - 88.0, 30.0, 276.0
    drawing = Drawing(WIDTH, 322.0)

    def place(point: Point) -> Point:
        share = (point[1] - levels[0]) / (levels[-1] - levels[0])
        return left + math.log2(point[0]) / doublings * (right - left), bottom - share * (bottom - top)

    drawing.text((2, 14), "nats per token")
    for level in levels:
        y = place((1, level))[1]
        drawing.line((left, y), (right, y), "grid")
        drawing.text((left - 8, y + 4), f"{level:g}", anchor="end")
    for power in range(0, int(doublings) + 1, 1 + int(doublings) // 7):
        drawing.text((place((2**power, levels[0]))[0], bottom + 19), f"{2**power:,}", anchor="middle")
    drawing.line((left, bottom), (right, bottom), "axis")
    drawing.text(((left + right) / 2, bottom + 40), "tokens before", anchor="middle")
    drawn = {
        name: (list(map(place, curve)), kind)
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


def bits_by_composer(bars: Sequence[Bar], told: Sequence[str]) -> Drawing | None:
    """Bits per note at 10 ms of each composer's music, the cheapest first.

    Args:
        bars: one a composer, whose name is the bar's `model`.
        told: what is said of each bar at its right.
    """
    if not bars:
        return None
    left, right, top, group = 196.0, WIDTH - 116.0, 8.0, 26.0
    levels = ticks(0.0, max(max(bar.value, bar.high or 0.0) for bar in bars), 4)
    bottom = top + group * len(bars)
    drawing = Drawing(WIDTH, bottom + 44.0)

    def x_of(value: float) -> float:
        return left + value / levels[-1] * (right - left)

    for level in levels:
        drawing.line((x_of(level), top), (x_of(level), bottom), "grid")
        drawing.text((x_of(level), bottom + 18), f"{level:g}", anchor="middle")
    drawing.text(((left + right) / 2, bottom + 38), "bits per note at 10 ms", anchor="middle")
    order = sorted(range(len(bars)), key=lambda index: (bars[index].value, bars[index].model))
    for row, index in enumerate(order):
        bar, y = bars[index], top + row * group + 4.0
        name = bar.model if len(bar.model) <= MOST_LETTERS else bar.model[: MOST_LETTERS - 1].rstrip() + "…"
        drawing.text((left - 10, y + 13), name, "name", anchor="end")
        drawing.bar(left, y, x_of(bar.value) - left, group - 8.0, "made")
        end = max(x_of(bar.value), _whisker(drawing, bar, x_of, y + group / 2 - 4.0))
        drawing.text((end + 7, y + 13), f"{bar.value:.1f}", "value")
        drawing.text((WIDTH, y + 13), told[index], "lesser", anchor="end")
    drawing.line((left, top), (left, bottom), "axis")
    return drawing
