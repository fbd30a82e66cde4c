"""Music of two pitches in twelve tokens, for tests of conditions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coma_gen.tokenizer.vocabulary import Vocabulary

BASE = [
    "PAD_None",
    "BOS_None",
    "EOS_None",
    "Bar_None",
    "Position_0",
    "Position_1",
    "Pitch_60",
    "Pitch_61",
    "Velocity_40",
    "Velocity_90",
    "Duration_0.1.2",
    "Duration_2.0.2",
]
PAD, BOS, EOS, BAR = range(4)


def vocabulary(*learned: tuple[int, ...]) -> Vocabulary:
    """A bar has 4 positions and lasts 2 s; notes last 1 or 4 positions."""
    alone = tuple((index,) for index in range(len(BASE)))
    return Vocabulary(tuple(BASE), alone + learned, 2, 4, (1, 4), (40, 90), "extend")


def note(pitch: int = 60, velocity: int = 40, positions: int = 1) -> list[int]:
    """A note at the first position of its bar."""
    return [4, 6 + pitch - 60, {40: 8, 90: 9}[velocity], {1: 10, 4: 11}[positions]]


def bar(count: int, **kind: int) -> list[int]:
    """A bar of so many notes."""
    return [BAR, *note(**kind) * count]


def piece(*bars: list[int]) -> npt.NDArray[np.uint16]:
    """Bars from BOS to EOS."""
    return np.array([BOS, *(token for each in bars for token in each), EOS], np.uint16)
