"""Charts as SVG text: shapes by class, colors by the page, so that one picture suits day and night.

A chart is written once and used twice: inside the page, whose style sheet colors it, and as a file of its
own, which carries that style sheet. Numbers are written with a fixed number of decimals: the same data, the
same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from coma_gen.report.theme import css_variables

CHART_STYLE = Path(__file__).with_name("chart.css")
"""Selectors of the classes that charts use; part of the page's style sheet too."""

Point = tuple[float, float]


class Drawing:
    """An SVG picture that grows shape by shape; coordinates in user units from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width = width
        self.height = height
        self._shapes: list[str] = []

    def line(self, start: Point, end: Point, kind: str) -> None:
        """A straight line of class `kind`."""
        ends = f'x1="{_n(start[0])}" y1="{_n(start[1])}" x2="{_n(end[0])}" y2="{_n(end[1])}"'
        self._shapes.append(f'<line class="{kind}" {ends}/>')

    def bar(self, left: float, top: float, width: float, height: float, kind: str) -> None:
        """A rectangle with slightly rounded corners."""
        box = f'x="{_n(left)}" y="{_n(top)}" width="{_n(max(0.5, width))}" height="{_n(height)}" rx="2"'
        self._shapes.append(f'<rect class="{kind}" {box}/>')

    def path(self, points: Iterable[Point], kind: str) -> None:
        """A line through all points."""
        text = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._shapes.append(f'<polyline class="{kind}" points="{text}"/>')

    def dot(self, center: Point, radius: float, kind: str) -> None:
        """A filled circle."""
        self._shapes.append(
            f'<circle class="{kind}" cx="{_n(center[0])}" cy="{_n(center[1])}" r="{_n(radius)}"/>'
        )

    def text(self, at: Point, text: str, kind: str = "label", anchor: str = "start") -> None:
        """Text whose baseline begins, is centered or ends (`anchor`: start, middle, end) at a point."""
        attributes = f'x="{_n(at[0])}" y="{_n(at[1])}" text-anchor="{anchor}"'
        self._shapes.append(f'<text class="{kind}" {attributes}>{escape(text)}</text>')

    def to_svg(self, description: str) -> str:
        """The picture as an element for a page; `description` is what a screen reader says."""
        return self._element(description, "", "")

    def to_file(self, description: str) -> str:
        """The picture as a file of its own."""
        style = f"<style>{css_variables()}{CHART_STYLE.read_text(encoding='utf-8')}</style>"
        backdrop = '<rect class="backdrop" width="100%" height="100%"/>'
        return self._element(description, ' xmlns="http://www.w3.org/2000/svg"', style + backdrop) + "\n"

    def _element(self, description: str, attributes: str, before: str) -> str:
        box = f'viewBox="0 0 {_n(self.width)} {_n(self.height)}"'
        label = f'role="img" aria-label="{escape(description)}"'
        return f'<svg class="chart"{attributes} {box} {label}>{before}{"".join(self._shapes)}</svg>'


def _n(value: float) -> str:
    """A coordinate: one decimal, never a negative zero."""
    text = f"{value:.1f}"
    return "0" if text in ("0.0", "-0.0") else text.removesuffix(".0")


def figure(value: float, digits: int = 6) -> str:
    """A number for people: `digits` significant digits at most, thousands apart."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(low: float, high: float, number: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) that enclose `low` to `high`, about `number`."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / number))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * number >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near `wanted` that are at least `gap` apart: labels that don't cover each other."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    positions = [0.0] * len(wanted)
    floor = low
    for index in order:
        positions[index] = max(floor, wanted[index])
        floor = positions[index] + gap
    ceiling = high
    for index in reversed(order):
        positions[index] = min(positions[index], ceiling)
        ceiling = positions[index] - gap
    return positions
