"""Where a note is in a piano roll: seconds and pitch to pixels, decided before anything is drawn.

Music of up to `ONE_SYSTEM_SECONDS` is one line; longer music wraps into systems below each other like a
printed score, so that an hour is as readable as a minute, at the same width.

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
"""Pixels above a line's notes that are still its own: the splice's mark and the name of its highest C."""
ONE_SYSTEM_SECONDS = 90.0
SYSTEM_SECONDS = 60.0
MAX_SYSTEMS = 12
TICK_STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)


@dataclass(frozen=True, slots=True)
class RollLayout:
    """The geometry of one piano roll; pixels count from the picture's upper left corner.

    Attributes:
        systems: how many lines the music wraps into.
        system_seconds: seconds that each line spans.
        low: lowest pitch shown.
        high: highest pitch shown.
        pitch_height: pixels of one semitone.
        pedal: whether there is a pedal band under each line.
        tick_seconds: seconds between two labels of the time axis.
        margin: pixels above the first line, for the heading or the legend alone.
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
        """Pixels of a line's notes, without pedal and time labels."""
        return (self.high - self.low + 1) * self.pitch_height

    @property
    def system_height(self) -> int:
        """Pixels from one line's top to the next one's."""
        return self.keys_height + (PEDAL_GAP + PEDAL_HEIGHT if self.pedal else 0) + TICKS_HEIGHT

    @property
    def height(self) -> int:
        """Pixels of the whole picture."""
        return self.margin + self.systems * self.system_height + BOTTOM

    def top(self, system: int) -> int:
        """The pixel row at which a line's notes begin."""
        return self.margin + system * self.system_height

    def band(self, system: int) -> tuple[int, int]:
        """The pixel rows (from, to) that show a line and nothing of another; the last has the foot too."""
        top = self.top(system) - HEADROOM
        last = system == self.systems - 1
        return top, self.height if last else top + self.system_height

    def system_of(self, seconds: float) -> int:
        """The line that shows this time; what is beyond the end belongs to the last."""
        return min(self.systems - 1, int(seconds // self.system_seconds))

    def x(self, seconds: float, system: int) -> float:
        """The horizontal pixel of a time on a line, kept within the line."""
        share = (seconds - system * self.system_seconds) / self.system_seconds
        return LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT)

    def y(self, pitch: int, system: int) -> float:
        """The upper pixel of a pitch's strip on a line."""
        return self.top(system) + (self.high - pitch) * self.pitch_height

    def shares(self) -> dict[str, float]:
        """Where time is, as shares of the picture's width and height: all that a player needs.

        Returns:
            lines and the seconds of each; left end and width of a line; top of the first line, from there to
            the next one's, and how much of that notes and pedal take.
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
        """The pixel (x, y) in the middle of a pitch's strip at a time."""
        system = self.system_of(seconds)
        return int(self.x(seconds, system)), int(self.y(pitch, system) + self.pitch_height / 2)


def layout_of(notes: Notes, *, prompt_seconds: float | None = None, heading: bool = True) -> RollLayout:
    """The geometry that suits some music: whole octaves around its pitches, three at least.

    Args:
        notes: the music.
        prompt_seconds: the splice, which is shown even where the music ends before it.
        heading: leave room for a title above the legend.
    """
    low, high = (int(notes.pitch.min()), int(notes.pitch.max())) if len(notes) else (60, 71)
    low, high = low // 12 * 12, high // 12 * 12 + 12
    while high - low < 36:
        low, high = max(0, low - 12), min(132, high + 12)
    pedal_end = float(notes.pedal[:, 1].max(initial=0.0))
    seconds = max(1.0, notes.end, pedal_end, prompt_seconds or 0.0)
    systems, system_seconds = _systems(seconds)
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


def _systems(seconds: float) -> tuple[int, float]:
    """How many lines, of how many seconds each."""
    if seconds <= ONE_SYSTEM_SECONDS:
        return 1, seconds
    wanted = min(MAX_SYSTEMS, math.ceil(seconds / SYSTEM_SECONDS))
    system_seconds = math.ceil(seconds / wanted / 5) * 5.0
    return math.ceil(seconds / system_seconds), system_seconds
