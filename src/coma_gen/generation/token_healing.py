"""How a prompt that ends inside a bar is written in byte pairs.

Byte pairs are merged bar by bar, and how the beginning of a bar is merged depends on what follows it: in
steady music a whole bar may be one id. Merged as if the bar were over, a prompt's last bar is written as
nothing that the model has seen, and left in base tokens too. So only the bars that are over are merged. The
last one is spelled: while its base tokens last, the model may draw every id that agrees with them, also one
that goes on beyond them (known from text as token healing).

    prompt, in base tokens   Bar Position Pitch Velocity Duration | Bar Position Pitch Velocity Duration
    read                     [-------- one id, or more ---------]
    to be spelled                                                  Bar Position Pitch Velocity Duration

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.tokenizer.vocabulary import Vocabulary

Flags = npt.NDArray[np.bool_]
NOTHING = -1


class PrefixConstraint:
    """Which ids agree with base tokens that must come next."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._length = np.array([len(piece) for piece in vocabulary.pieces], np.int64)
        self._pieces = np.full((len(vocabulary), int(self._length.max())), NOTHING, np.int32)
        for index, piece in enumerate(vocabulary.pieces):
            self._pieces[index, : len(piece)] = piece
        positions = vocabulary.span("Position")
        self._first, self._last = positions.start, positions.stop - 1

    def agreeing(self, spelled: Sequence[int]) -> Flags:
        """(V,) ids that begin as `spelled` does; those that are longer go on with a later position."""
        width = min(len(spelled), self._pieces.shape[1])
        part = self._pieces[:, :width]
        agrees = ((part == np.asarray(spelled[:width])) | (part == NOTHING)).all(1) & (self._length > 0)
        longer = self._length > len(spelled)
        if longer.any():
            following = self._pieces[:, len(spelled)]
            agrees &= ~longer | ((following >= self._first) & (following <= self._last))
        return np.asarray(agrees, np.bool_)


def read_and_spelled(
    ids: npt.NDArray[np.uint16], vocabulary: Vocabulary
) -> tuple[list[int], tuple[int, ...]]:
    """A prompt up to its last note, as ids to be read and base ids to be spelled.

    Args:
        ids: (T,) of the prompt; what stands behind its last note, such as a pedal that rises later, is left
            for the model to say.
        vocabulary: what the ids mean.

    Returns:
        Without byte pairs all of it is read. With them the last bar, which is not over, is spelled.
    """
    durations, bar = vocabulary.span("Duration"), vocabulary.span("Bar").start
    base = vocabulary.expanded(ids).astype(np.int64)
    ends = np.flatnonzero((base >= durations.start) & (base < durations.stop))
    base = base[: int(ends[-1]) + 1] if len(ends) else base[:0]
    if not vocabulary.learned:
        return [int(index) for index in base], ()
    last_bar = int(np.flatnonzero(base == bar)[-1]) if len(base) else 0
    sizes = np.array([len(vocabulary.pieces[index]) for index in ids], np.int64)
    closed = int(np.searchsorted(np.cumsum(sizes), last_bar, side="right")) if last_bar else 0
    return [int(index) for index in ids[:closed]], tuple(int(index) for index in base[last_bar:])
