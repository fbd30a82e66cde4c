"""Notices music that is stuck, and says from where to draw it again.

A small model that has struck the same few keys for a while goes on to strike them, because that is what it
hears. Each time a sequence opens a bar, the music of its last bars is looked at. It is stuck when

    it stayed on three keys or fewer for four seconds, with eight notes or more (fewer are slow music), or
    the pitches of a figure of at most 16 notes came five times in a row, within four seconds or more.

Then the sequence goes back to the bar in which that began, and is drawn again with the random numbers that
come next; at another try one bar further back. After `max_rewinds` tries it is left as it is: some prompts
ask for a trill.
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
"""Of a sequence's end that are looked at."""

Times = npt.NDArray[np.float64]
Pitches = npt.NDArray[np.integer]


@dataclass
class _Watched:
    """What is known of one sequence: the tokens that open its bars, how far it came before it went back, and
    how often it went back since it got stuck there.
    """

    bars: list[int] = field(default_factory=list)
    furthest: float = -1.0
    tries: int = 0


class LoopGuard:
    """Watches sequences.

    Args:
        vocabulary: of their tokens.
        max_rewinds: tries at one bar.
    """

    def __init__(self, vocabulary: Vocabulary, max_rewinds: int) -> None:
        self._vocabulary, self._max_rewinds = vocabulary, max_rewinds
        self._bar_seconds = vocabulary.positions_per_bar / vocabulary.positions_per_second
        self._watched: dict[int, _Watched] = {}

    def tokens_to_keep(self, sequence: SequenceState) -> int | None:
        """How many tokens of a sequence stay, whose newest one opens a bar; None where it may go on."""
        watched = self._watched.setdefault(id(sequence), _Watched())
        bars, newest = watched.bars, len(sequence.tokens) - 1
        first = max(0, len(bars) - BARS)
        recent = sequence.tokens[bars[first] : newest] if bars else []
        began = self._stuck_since(recent)
        bars.append(newest)
        if began is None:
            return None
        bar = first + int(began // self._bar_seconds)
        start = sequence.seconds - (len(bars) - 1 - bar) * self._bar_seconds
        if start >= watched.furthest:
            watched.tries = 0
        watched.furthest = max(watched.furthest, sequence.seconds)
        if watched.tries >= self._max_rewinds:
            return None
        bar -= watched.tries
        watched.tries += 1
        keep = bars[bar] if bar >= 0 else 0
        watched.bars = [start for start in bars if start < keep]
        return keep

    def _stuck_since(self, tokens: Sequence[int]) -> float | None:
        grid = decode_grid(self._vocabulary.expanded(tokens), self._vocabulary)
        return stuck_since(grid.onset / self._vocabulary.positions_per_second, grid.pitch)


def stuck_since(onset: Times, pitch: Pitches) -> float | None:
    """When the first passage began in which notes (N,) are stuck; None where they are not."""
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
