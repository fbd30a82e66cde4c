"""The bar charts of the report: bits per note, loss by token type, and attention window weights.

Each function takes plain numbers and returns a `Drawing`, or None if there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coma_gen.report.svg import Drawing, ticks

WIDTH = 460.0
ROW = 19.0
MAX_NAME_LENGTH = 24
"""Longer composer names are truncated to this many characters."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a bits-per-note chart.

    Attributes:
        model: Name of the model.
        split: Split that the value was measured on.
        value: Bits per note at 10 ms.
        low: Lower end of the 95% confidence interval, or None.
        high: Upper end of the 95% confidence interval, or None.
        is_ours: Whether the model is the one that the report is about.
    """

    model: str
    split: str
    value: float
    low: float | None = None
    high: float | None = None
    is_ours: bool = False


def bits_per_note(bars: Sequence[Bar]) -> Drawing | None:
    """Draws bits per note at 10 ms: a group of bars for each model, a bar for each split.

    Args:
        bars: Bars in drawing order, those of a model consecutive. Bars of the last split are emphasized.
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

    x_of = _draw_bits_axis(drawing, levels, left=left, right=right, top=top, bottom=bottom)
    _draw_legend(drawing, left, splits)
    for row, model in enumerate(models):
        begin = top + row * group + 8.0
        of_model = [bar for bar in bars if bar.model == model]
        drawing.text((left - 10, begin + ROW * len(splits) / 2 + 4), model, "name", anchor="end")
        for bar in of_model:
            y = begin + ROW * splits.index(bar.split)
            kind = ("made" if bar.is_ours else "plain") + ("" if bar.split == splits[-1] else "-soft")
            drawing.bar(left, y, x_of(bar.value) - left, ROW - 2.0, kind)
            end = max(x_of(bar.value), _draw_whisker(drawing, bar, x_of, y + ROW / 2 - 1.0))
            drawing.text((end + 7, y + ROW / 2 + 3.5), f"{bar.value:.1f}", "value")
    drawing.line((left, top), (left, bottom), "axis")
    return drawing


def _draw_bits_axis(
    drawing: Drawing, levels: Sequence[float], *, left: float, right: float, top: float, bottom: float
) -> Callable[[float], float]:
    """Draws a horizontal axis of bits per note from 0 with its grid, and returns its mapping to pixels."""

    def x_of(value: float) -> float:
        return left + value / levels[-1] * (right - left)

    for level in levels:
        drawing.line((x_of(level), top), (x_of(level), bottom), "grid")
        drawing.text((x_of(level), bottom + 18), f"{level:g}", anchor="middle")
    drawing.text(((left + right) / 2, bottom + 38), "bits per note at 10 ms", anchor="middle")
    return x_of


def _draw_legend(drawing: Drawing, left: float, splits: Sequence[str]) -> None:
    """Draws the color of each split."""
    at = left
    for split in splits:
        drawing.bar(at, 6.0, 12.0, 12.0, "plain" if split == splits[-1] else "plain-soft")
        drawing.text((at + 18, 16), split)
        at += 34.0 + 7.2 * len(split)


def _draw_whisker(drawing: Drawing, bar: Bar, x_of: Callable[[float], float], y: float) -> float:
    """Draws the confidence interval, if there is one, and returns its right end (else 0)."""
    if bar.low is None or bar.high is None:
        return 0.0
    low, high = x_of(bar.low), x_of(bar.high)
    drawing.line((low, y), (high, y), "whisker")
    for end in (low, high):
        drawing.line((end, y - 4.0), (end, y + 4.0), "whisker")
    return high


def nll_by_type(types: Mapping[str, Mapping[str, float]]) -> Drawing | None:
    """Draws nats per token of each token type, with its contribution to bits per note.

    Args:
        types: Token type -> figures: `nll_per_token` is drawn; `bits_per_note` is printed if present.
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


def bits_by_composer(bars: Sequence[Bar], remarks: Sequence[str]) -> Drawing | None:
    """Draws bits per note at 10 ms by composer, lowest first.

    Args:
        bars: One bar per composer, whose name is the bar's `model`.
        remarks: Text at the right of each bar.
    """
    if not bars:
        return None
    left, right, top, group = 216.0, WIDTH - 116.0, 8.0, 26.0
    levels = ticks(0.0, max(max(bar.value, bar.high or 0.0) for bar in bars), 4)
    bottom = top + group * len(bars)
    drawing = Drawing(WIDTH, bottom + 44.0)

    x_of = _draw_bits_axis(drawing, levels, left=left, right=right, top=top, bottom=bottom)
    order = sorted(range(len(bars)), key=lambda index: (bars[index].value, bars[index].model))
    for row, index in enumerate(order):
        bar, y = bars[index], top + row * group + 4.0
        is_short = len(bar.model) <= MAX_NAME_LENGTH
        name = bar.model if is_short else bar.model[: MAX_NAME_LENGTH - 1].rstrip() + "…"
        drawing.text((left - 10, y + 13), name, "name", anchor="end")
        drawing.bar(left, y, x_of(bar.value) - left, group - 8.0, "made")
        end = max(x_of(bar.value), _draw_whisker(drawing, bar, x_of, y + group / 2 - 4.0))
        drawing.text((end + 7, y + 13), f"{bar.value:.1f}", "value")
        drawing.text((WIDTH, y + 13), remarks[index], "lesser", anchor="end")
    drawing.line((left, top), (left, bottom), "axis")
    return drawing


def window_shares(shares: Mapping[str, Mapping[str, float]]) -> Drawing | None:
    """Draws the attention window weights: a row for each layer, a column for each window.

    A dashed line marks the equal weights at initialization, if all layers have the same number of windows.

    Args:
        shares: Layer -> window in tokens -> weight; the weights of a layer add up to 1.
    """
    windows = list(dict.fromkeys(window for row in shares.values() for window in row))
    if not windows:
        return None
    left, top, group, gap = 66.0, 34.0, 30.0, 48.0
    column = (WIDTH - left) / len(windows)
    largest = max(share for row in shares.values() for share in row.values())
    reach = max(column - gap, 4.0) / max(largest, 1e-9)
    bottom = top + group * len(shares)
    drawing = Drawing(WIDTH, bottom + 6.0)
    equal = 1 / len(windows) if len({len(row) for row in shares.values()}) == 1 else None
    drawing.text((left - 10, 16), "tokens", anchor="end")
    for index, window in enumerate(windows):
        begin = left + index * column
        drawing.text((begin, 16), window)
        for row, (layer, of) in enumerate(shares.items()):
            y = top + row * group + 4.0
            if index == 0:
                drawing.text((left - 10, y + 14), layer, "name", anchor="end")
            if window in of:
                drawing.bar(begin, y, of[window] * reach, group - 12.0, "made")
                drawing.text((begin + largest * reach + 6, y + 14), f"{of[window]:.0%}", "value")
        drawing.line((begin, top), (begin, bottom), "axis")
        if equal is not None:
            drawing.line((begin + equal * reach, top), (begin + equal * reach, bottom), "reference")
    return drawing
