"""Draws a piano roll: pitch over seconds.

Hue distinguishes the prompt (blue) from generated notes (vermilion), pale to deep shows velocity, and the
band under each line is the sustain pedal. `layout` fixes all pixel coordinates beforehand, the font is the
one that matplotlib ships, and no metadata is written, so that the same notes give the same bytes. The image
is drawn line by line, so that an hour of music needs no more memory than a minute.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from coma_gen.core.io import write_atomic
from coma_gen.midi.notes import Notes
from coma_gen.report.layout import (
    LEFT,
    PEDAL_GAP,
    PEDAL_HEIGHT,
    RIGHT,
    TICKS_HEIGHT,
    WIDTH,
    RollLayout,
    compute_layout,
)
from coma_gen.report.png import encode_png
from coma_gen.report.theme import LIGHT, Theme, blend

BLACK_KEYS = frozenset((1, 3, 6, 8, 10))
DPI = 144
GAP = 32.0
"""Minimum distance between the heading and the legend in pixels."""
MAX_CHARACTERS = 300
"""Longer headings are truncated to this before they are fitted to the width."""
MIN_NOTE_WIDTH = 3.5
"""Minimum width of a note in pixels."""
ROUNDING_SECONDS = 0.001
"""The prompt's last note may begin this much after the splice, since ticks and JSON round times."""
SOFTEST, LOUDEST = 24, 108
"""Velocities of the palest and the deepest color: the range that pianists use."""

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def roll_png(
    notes: Notes,
    *,
    title: str | None,
    prompt_seconds: float | None = None,
    theme: Theme = LIGHT,
    detail: tuple[str, str] | None = None,
) -> bytes:
    """Draws a piano roll as PNG.

    Args:
        notes: The music.
        title: Heading, truncated to one line; None to draw no heading.
        prompt_seconds: Time of the splice: notes that begin no later belong to the prompt. None for
            unprompted music.
        theme: Colors.
        detail: Second line of the heading in two parts, of which only the first may be truncated; None for
            the number of notes and the length.

    Returns:
        The image, `layout.WIDTH` pixels wide and deterministic to the byte.
    """
    layout = compute_layout(notes, prompt_seconds=prompt_seconds, heading=title is not None)

    bars = _lay_out_notes(layout, notes, prompt_seconds, theme)
    canvas = _Canvas(theme)

    def draw_head(axes: Axes) -> None:
        legend = _draw_legend(axes, layout, prompt_seconds, theme)
        if title is not None:
            _draw_heading(axes, title, detail or ("", _describe(notes)), theme, right=legend)

    def draw_line(axes: Axes, system: int) -> None:
        _draw_keyboard(axes, layout, system, theme)
        _draw_time(axes, layout, system, theme)
        _draw_pedal(axes, layout, system, notes, theme)
        _draw_rectangles(axes, *bars[system], order=4)
        if prompt_seconds is not None and layout.system_of(prompt_seconds) == system:
            _draw_prompt_end(axes, layout, prompt_seconds, theme)

    def bands() -> Iterator[NDArray[np.uint8]]:
        yield canvas.draw_rows(0, layout.band(0)[0], draw_head)
        for system in range(layout.systems):
            yield canvas.draw_rows(*layout.band(system), partial(draw_line, system=system))

    return encode_png(bands(), width=WIDTH, height=layout.height, dpi=DPI)


def write_roll(
    path: Path, notes: Notes, *, title: str, prompt_seconds: float | None = None, theme: Theme = LIGHT
) -> None:
    """Writes `roll_png` to a file, atomically."""
    write_atomic(path, roll_png(notes, title=title, prompt_seconds=prompt_seconds, theme=theme))


class _Canvas:
    """Draws the image some rows at a time on one reused figure, in pixel coordinates of the whole image."""

    def __init__(self, theme: Theme) -> None:
        with matplotlib.rc_context(_get_default_style()):
            self._figure = Figure(dpi=DPI, facecolor=theme.panel)
        self._canvas = FigureCanvasAgg(self._figure)

    def draw_rows(self, top: int, bottom: int, draw: Callable[[Axes], None]) -> NDArray[np.uint8]:
        """Calls `draw` and returns the rows from top to bottom as RGB, (bottom - top, WIDTH, 3)."""
        with matplotlib.rc_context(_get_default_style()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a title may use glyphs that the font lacks
            self._figure.clear()
            self._figure.set_size_inches(WIDTH / DPI, (bottom - top) / DPI)
            axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))
            axes.set_xlim(0, WIDTH)
            axes.set_ylim(bottom, top)
            axes.axis("off")
            draw(axes)
            self._canvas.draw()  # type: ignore[no-untyped-call]
        return np.asarray(self._canvas.buffer_rgba())[:, :, :3]  # type: ignore[no-untyped-call]


def _get_default_style() -> Any:
    """The default settings of matplotlib, independent of any matplotlibrc on this machine."""
    style = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key}
    return style | {"font.family": ["DejaVu Sans"], "path.simplify": False, "text.parse_math": False}


def _describe(notes: Notes) -> str:
    minutes, seconds = divmod(round(notes.end), 60)
    return f"{len(notes):,} {'note' if len(notes) == 1 else 'notes'} · {minutes}:{seconds:02d}"


def _draw_rectangles(axes: Axes, rectangles: list[Rectangle], colors: list[str] | str, *, order: int) -> None:
    if not rectangles:
        return
    left, top, right, bottom = np.array(rectangles).T
    corners = np.stack([left, top, right, top, right, bottom, left, bottom], axis=1).reshape(-1, 4, 2)
    axes.add_collection(
        PolyCollection(list(corners), facecolors=colors, edgecolors="none", zorder=order), autolim=False
    )


def _draw_lines(axes: Axes, lines: list[Rectangle], color: str, *, order: int, width: float = 0.5) -> None:
    """Draws straight lines, each from (left, top) to (right, bottom)."""
    segments = [((left, top), (right, bottom)) for left, top, right, bottom in lines]
    axes.add_collection(LineCollection(segments, colors=color, linewidths=width, zorder=order), autolim=False)


def _draw_heading(axes: Axes, title: str, detail: tuple[str, str], theme: Theme, *, right: float) -> None:
    """Draws title and detail above the left end of the music; the detail ends before the pixel `right`."""
    width = float(WIDTH - RIGHT - LEFT)
    _draw_fitted_text(axes, 40, title, "", width, fontsize=12.5, fontweight="bold", color=theme.ink)
    _draw_fitted_text(axes, 69, *detail, right - GAP - LEFT, fontsize=9.5, color=theme.muted)


def _draw_fitted_text(axes: Axes, y: float, text: str, end: str, width: float, **style: Any) -> None:
    """Draws one line of at most `width` pixels: `text`, truncated if needed, followed by `end`."""
    text = " ".join(text.split())
    line = axes.text(LEFT, y, text + end, va="baseline", **style)
    for length in range(min(len(text), MAX_CHARACTERS), -1, -1):
        if _measure_text(line)[1] - LEFT <= width:
            return
        line.set_text(text[:length].rstrip(" ,") + "…" + end)


def _measure_text(text: Text) -> tuple[float, float]:
    """Returns the left and right pixel of a text."""
    box = text.get_window_extent()
    return float(box.x0), float(box.x1)


def _draw_legend(axes: Axes, layout: RollLayout, prompt_seconds: float | None, theme: Theme) -> float:
    """Draws the color legend above the right end of the music: name, soft, a color ramp, loud.

    Returns:
        The left pixel of the legend.
    """
    ramps = [("notes", theme.made_soft, theme.made)]
    if prompt_seconds is not None:
        ramps = [("continuation", theme.made_soft, theme.made), ("prompt", theme.given_soft, theme.given)]
    right, middle, steps, step = float(WIDTH - RIGHT), layout.margin - 33.0, 12, 7.0
    for name, soft, loud in ramps:
        left = right - 46 - steps * step
        colors = [blend(soft, loud, index / (steps - 1)) for index in range(steps)]
        starts = [left + index * step for index in range(steps)]
        _draw_rectangles(
            axes, [(start, middle - 6, start + step, middle + 6) for start in starts], colors, order=2
        )
        for x, text, size, color in (
            (right, "loud", 8.0, theme.muted),
            (left - 8, "soft", 8.0, theme.muted),
            (left - 58, name, 9.0, loud),
        ):
            drawn = axes.text(x, middle, text, fontsize=size, color=color, ha="right", va="center_baseline")
        right = left - 230
    return _measure_text(drawn)[0]


def _draw_keyboard(axes: Axes, layout: RollLayout, system: int, theme: Theme) -> None:
    """Draws the rows of the black keys, and a labeled line under each C."""
    left, right = float(LEFT), float(WIDTH - RIGHT)
    pitches = range(layout.low, layout.high + 1)
    rows = [layout.y(pitch, system) for pitch in pitches if pitch % 12 in BLACK_KEYS]
    _draw_rectangles(axes, [(left, y, right, y + layout.pitch_height) for y in rows], theme.shade, order=1)
    octaves = [pitch for pitch in pitches if pitch % 12 == 0]
    below = [layout.y(pitch, system) + layout.pitch_height for pitch in octaves]
    _draw_lines(axes, [(left, y, right, y) for y in below], theme.line, order=2, width=0.9)
    for pitch, y in zip(octaves, below, strict=True):
        middle = y - layout.pitch_height / 2
        name = f"C{pitch // 12 - 1}"
        size = 9 if layout.pitch_height > 4 else 7
        axes.text(left - 12, middle, name, fontsize=size, color=theme.muted, ha="right", va="center_baseline")


def _draw_time(axes: Axes, layout: RollLayout, system: int, theme: Theme) -> None:
    """Draws vertical grid lines labeled in seconds, or in minutes and seconds for long music."""
    begin = system * layout.system_seconds
    first = math.ceil(begin / layout.tick_seconds)
    last = math.floor((begin + layout.system_seconds) / layout.tick_seconds + 1e-9)
    top, bottom = layout.top(system), layout.top(system) + layout.system_height - TICKS_HEIGHT
    in_minutes = layout.systems * layout.system_seconds > 90
    for index in range(first, last + 1):
        seconds = index * layout.tick_seconds
        x = layout.x(seconds, system)
        _draw_lines(axes, [(x, top, x, bottom)], theme.line, order=2, width=0.6)
        text = f"{int(seconds) // 60}:{int(seconds) % 60:02d}" if in_minutes else f"{seconds:g}"
        text += " s" if index == last and not in_minutes else ""
        axes.text(x, bottom + 7, text, fontsize=8.5, color=theme.muted, ha="center", va="top")


def _split_span(layout: RollLayout, start: float, end: float) -> list[tuple[int, float, float]]:
    """Splits a time span into (line, left, right) for each line that it touches."""
    first, last = layout.system_of(start), layout.system_of(end)
    return [(line, layout.x(start, line), layout.x(end, line)) for line in range(first, last + 1)]


def _draw_pedal(axes: Axes, layout: RollLayout, system: int, notes: Notes, theme: Theme) -> None:
    """Draws the pedal band under a line, filled while the pedal is down."""
    if not layout.pedal:
        return
    top = layout.top(system) + layout.keys_height + PEDAL_GAP
    bottom = top + PEDAL_HEIGHT
    _draw_rectangles(axes, [(LEFT, top, WIDTH - RIGHT, bottom)], theme.shade, order=0)
    middle = (top + bottom) / 2
    axes.text(LEFT - 12, middle, "pedal", fontsize=8, color=theme.muted, ha="right", va="center_baseline")
    spans = [span for down, up in notes.pedal.tolist() for span in _split_span(layout, down, up)]
    pressed: list[Rectangle] = [
        (left, top, max(left + 1, right - 1), bottom) for line, left, right in spans if line == system
    ]
    _draw_rectangles(axes, pressed, theme.plain_soft, order=3)


def _lay_out_notes(
    layout: RollLayout, notes: Notes, prompt_seconds: float | None, theme: Theme
) -> list[tuple[list[Rectangle], list[str]]]:
    """Computes rectangles and colors of the notes of each line, soft to loud: loud ones are drawn on top."""
    prompt_end = -1.0 if prompt_seconds is None else prompt_seconds + ROUNDING_SECONDS
    depths = [min(1.0, max(0.0, (velocity - SOFTEST) / (LOUDEST - SOFTEST))) for velocity in range(128)]
    made = [blend(theme.made_soft, theme.made, depth) for depth in depths]
    given = [blend(theme.given_soft, theme.given, depth) for depth in depths]
    bars: list[tuple[list[Rectangle], list[str]]] = [([], []) for _ in range(layout.systems)]
    for index in np.argsort(notes.velocity, kind="stable").tolist():
        onset, pitch = float(notes.onset[index]), int(notes.pitch[index])
        color = (given if onset <= prompt_end else made)[int(notes.velocity[index])]
        for system, left, right in _split_span(layout, onset, onset + float(notes.duration[index])):
            top = layout.y(pitch, system)
            rectangles, colors = bars[system]
            rectangles.append(
                (left, top, max(left + MIN_NOTE_WIDTH, right - 1), top + layout.pitch_height - 1)
            )
            colors.append(color)
    return bars


def _draw_prompt_end(axes: Axes, layout: RollLayout, seconds: float, theme: Theme) -> None:
    """Draws the splice marker, where the prompt ends and the continuation begins."""
    system = layout.system_of(seconds)
    x, top = layout.x(seconds, system), layout.top(system)
    bottom = top + layout.system_height - TICKS_HEIGHT
    _draw_lines(axes, [(x, top - 6, x, bottom)], theme.ink, order=6, width=1.1)
    triangle = PolyCollection(
        [[(x - 6, top - 12), (x + 6, top - 12), (x, top - 2)]], facecolors=theme.ink, zorder=6
    )
    axes.add_collection(triangle, autolim=False)
