"""The geometry of a piano roll: maps seconds and pitch to pixels before anything is drawn.

Music of up to `ONE_SYSTEM_SECONDS` fits on one line. Longer music wraps into systems, like a printed score,
so that an hour is as readable as a minute at the same width.

      x0 = LEFT                                     WIDTH - RIGHT
       |                                                 |
    C5 |  ----      --                                   |   one system: `pitch_height` pixels a semitone,
    C4 |       ---      ------                           |   the pedal band under it where there is a pedal
       |  ▒▒▒▒▒▒▒▒▒▒   ▒▒▒▒▒▒                             |
       0         5         10        15 s
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from coma_gen.midi.notes import Notes

WIDTH = 1800
LEFT, RIGHT, BOTTOM = 76, 28, 16
HEADING_HEIGHT, LEGEND_HEIGHT = 96, 54
PEDAL_GAP, PEDAL_HEIGHT = 12, 14
TICKS_HEIGHT = 42
HEADROOM = 14
"""Pixels above the notes of a system that belong to it: the splice marker and the label of its highest C."""
ONE_SYSTEM_SECONDS = 90.0
SYSTEM_SECONDS = 60.0
MAX_SYSTEMS = 12
TICK_STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)


@dataclass(frozen=True, slots=True)
class RollLayout:
    """The geometry of one piano roll, in pixels from the upper left corner of the image.

    Attributes:
        systems: Number of lines that the music wraps into.
        system_seconds: Seconds per line.
        low: Lowest pitch shown.
        high: Highest pitch shown.
        pitch_height: Pixels per semitone.
        pedal: Whether a pedal band is drawn under each line.
        tick_seconds: Seconds between labels of the time axis.
        margin: Pixels above the first line, for the heading and legend, or for the legend alone.
    """

    systems: int
    system_seconds: float
    low: int
    high: int
    pitch_height: int
    pedal: bool
    tick_seconds: float
    margin: int

    @property
    def keys_height(self) -> int:
        """Height of the notes of a line, without the pedal band and time labels."""
        return (self.high - self.low + 1) * self.pitch_height

    @property
    def system_height(self) -> int:
        """Distance between the tops of two consecutive lines."""
        return self.keys_height + (PEDAL_GAP + PEDAL_HEIGHT if self.pedal else 0) + TICKS_HEIGHT

    @property
    def height(self) -> int:
        """Height of the whole image."""
        return self.margin + self.systems * self.system_height + BOTTOM

    def top(self, system: int) -> int:
        """The pixel row at which the notes of a line begin."""
        return self.margin + system * self.system_height

    def band(self, system: int) -> tuple[int, int]:
        """The pixel rows (first, end) of one line; those of the last line include the bottom margin."""
        top = self.top(system) - HEADROOM
        last = system == self.systems - 1
        return top, self.height if last else top + self.system_height

    def system_of(self, seconds: float) -> int:
        """The line that shows this time; times beyond the end belong to the last line."""
        return min(self.systems - 1, int(seconds // self.system_seconds))

    def x(self, seconds: float, system: int) -> float:
        """The horizontal pixel of a time on a line, clamped to the line."""
        fraction = (seconds - system * self.system_seconds) / self.system_seconds
        return LEFT + min(1.0, max(0.0, fraction)) * (WIDTH - LEFT - RIGHT)

    def y(self, pitch: int, system: int) -> float:
        """The top pixel of a pitch's row on a line."""
        return self.top(system) + (self.high - pitch) * self.pitch_height

    def shares(self) -> dict[str, float]:
        """The time axis in fractions of the image's width and height, from which a player places its
        playhead.

        Returns:
            `lines` and `line_seconds`: number of lines and seconds per line. `left` and `width`: horizontal
            extent of a line. `top`: top of the first line. `step`: distance to the next line. `height`:
            height of a line's notes and pedal band.
        """
        return {
            "lines": self.systems,
            "line_seconds": self.system_seconds,
            "left": LEFT / WIDTH,
            "width": (WIDTH - LEFT - RIGHT) / WIDTH,
            "top": self.margin / self.height,
            "step": self.system_height / self.height,
            "height": (self.system_height - TICKS_HEIGHT) / self.height,
        }

    def pixel(self, seconds: float, pitch: int) -> tuple[int, int]:
        """The pixel (x, y) in the middle of a pitch's row at a time."""
        system = self.system_of(seconds)
        return int(self.x(seconds, system)), int(self.y(pitch, system) + self.pitch_height / 2)


def compute_layout(notes: Notes, *, prompt_seconds: float | None = None, heading: bool = True) -> RollLayout:
    """Chooses the geometry for some notes: whole octaves around their pitches, at least three.

    Args:
        notes: The music.
        prompt_seconds: Time of the splice, which is shown even if the music ends before it.
        heading: Whether to reserve space for a title above the legend.
    """
    low, high = (int(notes.pitch.min()), int(notes.pitch.max())) if len(notes) else (60, 71)
    low, high = low // 12 * 12, high // 12 * 12 + 12
    while high - low < 36:
        low, high = max(0, low - 12), min(132, high + 12)
    pedal_end = float(notes.pedal[:, 1].max(initial=0.0))
    seconds = max(1.0, notes.end, pedal_end, prompt_seconds or 0.0)
    systems, system_seconds = _wrap(seconds)
    per_semitone = 8 if systems == 1 else 6 if systems <= 3 else 5
    ticks = (step for step in TICK_STEPS if system_seconds / step <= 20)
    return RollLayout(
        systems=systems,
        system_seconds=system_seconds,
        low=low,
        high=min(high, 127),
        pitch_height=per_semitone,
        pedal=len(notes.pedal) > 0,
        tick_seconds=next(ticks, system_seconds / 10),
        margin=HEADING_HEIGHT if heading else LEGEND_HEIGHT,
    )


def _wrap(seconds: float) -> tuple[int, float]:
    """Chooses the number of lines and the seconds per line."""
    if seconds <= ONE_SYSTEM_SECONDS:
        return 1, seconds
    systems = min(MAX_SYSTEMS, math.ceil(seconds / SYSTEM_SECONDS))
    system_seconds = math.ceil(seconds / systems / 5) * 5.0
    return math.ceil(seconds / system_seconds), system_seconds
