"""Token healing: encoding a prompt that ends inside a bar in byte pairs.

Byte pairs are merged bar by bar, and the merges at the beginning of a bar depend on what follows: in steady
music a whole bar may be one id. Encoding the prompt's unfinished last bar as if it were complete gives ids
that the model never saw in this context, and so does leaving it in base tokens. Therefore only finished bars
are encoded. The last bar becomes a prefix of the generated tokens: while its base tokens last, the model may
sample every id that matches them, including one that extends beyond them.

    prompt, in base tokens   Bar Position Pitch Velocity Duration | Bar Position Pitch Velocity Duration
    encoded                  [-------- one id, or more ---------]
    prefix                                                          Bar Position Pitch Velocity Duration

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
    """Finds the ids that match the base tokens which must come next."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._length = np.array([len(piece) for piece in vocabulary.pieces], np.int64)
        self._pieces = np.full((len(vocabulary), int(self._length.max())), NOTHING, np.int32)
        for index, piece in enumerate(vocabulary.pieces):
            self._pieces[index, : len(piece)] = piece
        positions = vocabulary.span("Position")
        self._first, self._last = positions.start, positions.stop - 1

    def matching_ids(self, prefix: Sequence[int]) -> Flags:
        """Returns a mask (V,) of the ids that match `prefix`; a longer id must continue with a position."""
        width = min(len(prefix), self._pieces.shape[1])
        part = self._pieces[:, :width]
        matches = ((part == np.asarray(prefix[:width])) | (part == NOTHING)).all(1) & (self._length > 0)
        longer = self._length > len(prefix)
        if longer.any():
            following = self._pieces[:, len(prefix)]
            matches &= ~longer | ((following >= self._first) & (following <= self._last))
        return np.asarray(matches, np.bool_)


def split_prompt(ids: npt.NDArray[np.uint16], vocabulary: Vocabulary) -> tuple[list[int], tuple[int, ...]]:
    """Splits a prompt, up to its last note, into encoded ids and a prefix of base ids.

    Args:
        ids: (T,) ids of the prompt. Events after its last note, such as a pedal release, are dropped: the
            model generates them.
        vocabulary: The vocabulary of the ids.

    Returns:
        The encoded ids, and the base ids of the last bar. Without byte pairs the prefix is empty.
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
