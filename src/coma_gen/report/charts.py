"""The bar charts of the report: how good it is, what it finds hard, and which windows it listens to.

Each function takes plain numbers and returns a `Drawing`, or None where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coma_gen.report.svg import Drawing, ticks

WIDTH = 460.0
ROW = 19.0
MOST_LETTERS = 24
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

    x_of = _bits_axis(drawing, levels, left=left, right=right, top=top, bottom=bottom)
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


def _bits_axis(
    drawing: Drawing, levels: Sequence[float], *, left: float, right: float, top: float, bottom: float
) -> Callable[[float], float]:
    """Draws a horizontal axis of bits per note from 0, with its grid; returns where on it a value lies."""

    def x_of(value: float) -> float:
        return left + value / levels[-1] * (right - left)

    for level in levels:
        drawing.line((x_of(level), top), (x_of(level), bottom), "grid")
        drawing.text((x_of(level), bottom + 18), f"{level:g}", anchor="middle")
    drawing.text(((left + right) / 2, bottom + 38), "bits per note at 10 ms", anchor="middle")
    return x_of


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


def bits_by_composer(bars: Sequence[Bar], told: Sequence[str]) -> Drawing | None:
    """Bits per note at 10 ms of each composer's music, the cheapest first.

    Args:
        bars: one a composer, whose name is the bar's `model`.
        told: what is said of each bar at its right.
    """
    if not bars:
        return None
    left, right, top, group = 216.0, WIDTH - 116.0, 8.0, 26.0
    levels = ticks(0.0, max(max(bar.value, bar.high or 0.0) for bar in bars), 4)
    bottom = top + group * len(bars)
    drawing = Drawing(WIDTH, bottom + 44.0)

    x_of = _bits_axis(drawing, levels, left=left, right=right, top=top, bottom=bottom)
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


def window_shares(shares: Mapping[str, Mapping[str, float]]) -> Drawing | None:
    """How much each layer listens to each window: a row for each layer, a column for each window.

    Args:
        shares: layer -> window, in tokens -> share; they add up to 1 over a layer. Dashed is what an
            untrained layer gives each of its windows, if all have the same number of them.
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
