"""Detects repetition loops and finds the point from which to resample.

A small model that has repeated a few keys for a while tends to continue the repetition. Each time a sequence
opens a bar, the guard examines its last bars. They are a loop when

    they stay on at most three keys for four seconds with at least eight notes (fewer are slow music), or
    a figure of at most 16 pitches occurs five times in a row, over at least four seconds.

Then the sequence is rewound to the bar in which the loop began and resampled with the next random numbers;
each further attempt starts one bar earlier. After `max_rewinds` attempts the music stays: some prompts call
for a trill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from coma_gen.generation.sequence import SequenceState
from coma_gen.midi.measures import longest_stay
from coma_gen.tokenizer.codec import decode_grid
from coma_gen.tokenizer.vocabulary import Vocabulary

SECONDS, NOTES = 4.0, 8
LONGEST_FIGURE, TIMES = 16, 5
BARS = 8
"""Number of bars at the end of a sequence that are examined."""

Times = npt.NDArray[np.float64]
Pitches = npt.NDArray[np.integer]


@dataclass
class _BarHistory:
    """Bars and rewinds of one sequence.

    Attributes:
        bars: Indices of the tokens that open its bars.
        furthest: Greatest length in seconds at which a loop was found.
        tries: Rewinds from the present loop.
    """

    bars: list[int] = field(default_factory=list)
    furthest: float = -1.0
    tries: int = 0


class LoopGuard:
    """Detects loops in the sequences of a batch.

    Args:
        vocabulary: Vocabulary of their tokens.
        max_rewinds: Maximum number of attempts at one bar.
    """

    def __init__(self, vocabulary: Vocabulary, max_rewinds: int) -> None:
        self._vocabulary, self._max_rewinds = vocabulary, max_rewinds
        self._bar_seconds = vocabulary.positions_per_bar / vocabulary.positions_per_second
        self._histories: dict[int, _BarHistory] = {}

    def tokens_to_keep(self, sequence: SequenceState) -> int | None:
        """Returns how many generated tokens to keep where the last opens a bar; None to continue."""
        history = self._histories.setdefault(id(sequence), _BarHistory())
        bars, newest = history.bars, len(sequence.tokens) - 1
        first = max(0, len(bars) - BARS)
        recent = sequence.tokens[bars[first] : newest] if bars else []
        began = self._find_loop_start(recent)
        bars.append(newest)
        if began is None:
            return None
        bar = first + int(began // self._bar_seconds)
        start = sequence.seconds - (len(bars) - 1 - bar) * self._bar_seconds
        if start >= history.furthest:
            history.tries = 0
        history.furthest = max(history.furthest, sequence.seconds)
        if history.tries >= self._max_rewinds:
            return None
        bar -= history.tries
        history.tries += 1
        keep = bars[bar] if bar >= 0 else 0
        history.bars = [start for start in bars if start < keep]
        return keep

    def _find_loop_start(self, tokens: Sequence[int]) -> float | None:
        grid = decode_grid(self._vocabulary.expanded(tokens), self._vocabulary)
        return find_loop_start(grid.onset / self._vocabulary.positions_per_second, grid.pitch)


def find_loop_start(onset: Times, pitch: Pitches) -> float | None:
    """Returns the onset of the first loop in notes (N,); None without one."""
    first, last = longest_stay(onset, pitch)
    stays = last - first + 1 >= NOTES and onset[last] - onset[first] >= SECONDS
    found = [float(onset[first])] if stays else []
    for size in range(1, LONGEST_FIGURE + 1):
        same = np.concatenate([[False], pitch[size:] == pitch[:-size], [False]])
        for begin, end in np.flatnonzero(np.diff(same)).reshape(-1, 2):
            final = end + size - 1  # each note from begin + size to here is that of one figure before
            if final - begin + 1 >= TIMES * size and onset[final] - onset[begin] >= SECONDS:
                found.append(float(onset[begin]))
    return min(found, default=None)
