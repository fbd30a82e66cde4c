"""Charts as SVG: shapes carry CSS classes and the style sheet sets their colors, for the light and dark
themes.

A chart is used twice: inline in the page, whose style sheet applies, and as a standalone file that includes
that style sheet. Numbers have a fixed number of decimals, so that the same data gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from coma_gen.report.theme import css_variables

CHART_STYLE = Path(__file__).with_name("chart.css")
"""Style sheet of the chart classes; also part of the page's style sheet."""

Point = tuple[float, float]


class Drawing:
    """An SVG drawing; coordinates are in user units from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width = width
        self.height = height
        self._shapes: list[str] = []

    def line(self, start: Point, end: Point, kind: str) -> None:
        """Adds a straight line of CSS class `kind`."""
        ends = f'x1="{_n(start[0])}" y1="{_n(start[1])}" x2="{_n(end[0])}" y2="{_n(end[1])}"'
        self._shapes.append(f'<line class="{kind}" {ends}/>')

    def bar(self, left: float, top: float, width: float, height: float, kind: str) -> None:
        """Adds a rectangle with slightly rounded corners."""
        box = f'x="{_n(left)}" y="{_n(top)}" width="{_n(max(0.5, width))}" height="{_n(height)}" rx="2"'
        self._shapes.append(f'<rect class="{kind}" {box}/>')

    def path(self, points: Iterable[Point], kind: str) -> None:
        """Adds a line through all points."""
        text = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._shapes.append(f'<polyline class="{kind}" points="{text}"/>')

    def dot(self, center: Point, radius: float, kind: str) -> None:
        """Adds a circle."""
        self._shapes.append(
            f'<circle class="{kind}" cx="{_n(center[0])}" cy="{_n(center[1])}" r="{_n(radius)}"/>'
        )

    def text(self, at: Point, text: str, kind: str = "label", anchor: str = "start") -> None:
        """Adds text whose baseline starts, is centered or ends (`anchor`: start, middle, end) at a point."""
        attributes = f'x="{_n(at[0])}" y="{_n(at[1])}" text-anchor="{anchor}"'
        self._shapes.append(f'<text class="{kind}" {attributes}>{escape(text)}</text>')

    def to_svg(self, description: str) -> str:
        """Renders the drawing as an inline element; `description` is its text alternative."""
        return self._render_element(description, "", "")

    def to_file(self, description: str) -> str:
        """Renders the drawing as a standalone SVG file."""
        style = f"<style>{css_variables()}{CHART_STYLE.read_text(encoding='utf-8')}</style>"
        backdrop = '<rect class="backdrop" width="100%" height="100%"/>'
        return (
            self._render_element(description, ' xmlns="http://www.w3.org/2000/svg"', style + backdrop) + "\n"
        )

    def _render_element(self, description: str, attributes: str, before: str) -> str:
        box = f'viewBox="0 0 {_n(self.width)} {_n(self.height)}"'
        label = f'role="img" aria-label="{escape(description)}"'
        return f'<svg class="chart"{attributes} {box} {label}>{before}{"".join(self._shapes)}</svg>'


def _n(value: float) -> str:
    """Formats a coordinate with one decimal and no negative zero."""
    text = f"{value:.1f}"
    return "0" if text in ("0.0", "-0.0") else text.removesuffix(".0")


def figure(value: float, digits: int = 6) -> str:
    """Formats a number with at most `digits` significant digits and thousands separators."""
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
    """Chooses about `number` round values (1, 2 or 5 times a power of ten apart) that enclose [low, high]."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / number))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * number >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def spread(targets: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves label positions so that they are at least `gap` apart, close to their targets."""
    order = sorted(range(len(targets)), key=lambda index: targets[index])
    positions = [0.0] * len(targets)
    floor = low
    for index in order:
        positions[index] = max(floor, targets[index])
        floor = positions[index] + gap
    ceiling = high
    for index in reversed(order):
        positions[index] = min(positions[index], ceiling)
        ceiling = positions[index] - gap
    return positions
