"""Memorization: the longest passages that a piece shares, note for note, with the training set.

A piece is encoded as a sequence of symbols: for each note and the next (at equal onsets the lower first), the
interval in semitones and the time in steps of 50 ms. A transposed or shifted passage has the same symbols.
The longest shared passage is exact: all suffixes of all sequences are sorted by prefix doubling (Manber and
Myers 1993), and the train suffix with the longest common prefix is a neighbor of the piece's suffix in that
order.

Runs, trills and repeated chords occur in unrelated music as well. The length is therefore reported beside
that of performances which the model has not seen.

Shapes: N notes, S symbols of all rows together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.midi.notes import Notes

Symbols = npt.NDArray[np.int64]
Ranks = npt.NDArray[np.int32]
TIME_STEP = 0.05
LONGEST_STEPS = 63
"""Longer times (above 3.15 s) are clipped to this many steps."""
PITCHES = 128


@dataclass(frozen=True)
class Passage:
    """The longest passage that a piece shares with the training set.

    Attributes:
        notes: Number of notes; 0 where not even two consecutive notes occur in the training set.
        start: Index of the passage's first note in the piece.
        row: Row of the training set that contains it; -1 where there is none.
    """

    notes: int
    start: int
    row: int


def encode_steps(notes: Notes) -> Symbols:
    """Encodes the step from each note to the next as one symbol (N - 1,); empty for fewer than two notes."""
    interval = np.diff(notes.pitch.astype(np.int64))
    # Times on a grid can lie exactly between two steps: the offset keeps rounding errors from deciding.
    steps = np.floor(np.diff(notes.onset) / TIME_STEP + 0.5 + 1e-6).astype(np.int64)
    row = (interval + PITCHES) * (LONGEST_STEPS + 1) + np.minimum(steps, LONGEST_STEPS)
    return np.asarray(row, np.int64)


def longest_passages(train: Sequence[Symbols], pieces: Sequence[Symbols]) -> list[Passage]:
    """Finds the longest passage that each piece shares with any row of a training set of at least one row."""
    rows = [*pieces, *train]
    text, starts = _concatenate(rows)
    longest = max((len(piece) for piece in pieces), default=0)
    levels = list(_iter_ranks(text, longest))
    order = np.argsort(levels[-1], kind="stable")
    first_train = starts[len(pieces)]
    found = np.zeros(first_train, np.int64)
    where = np.zeros(first_train, np.int64)
    for neighbors in _find_train_neighbors(order, first_train):
        shared = _count_shared(levels, np.arange(first_train), neighbors)
        better = shared > found
        found[better], where[better] = shared[better], neighbors[better]
    passages = []
    for piece, start in zip(pieces, starts, strict=False):
        position = int(start) + (int(np.argmax(found[start : start + len(piece)])) if len(piece) else 0)
        if not len(piece) or not found[position]:
            passages.append(Passage(0, 0, -1))
            continue
        row = int(np.searchsorted(starts, where[position], side="right")) - 1 - len(pieces)
        passages.append(Passage(int(found[position]) + 1, position - int(start), row))
    return passages


def _concatenate(rows: Sequence[Symbols]) -> tuple[Ranks, Symbols]:
    """Concatenates all rows (S,), each followed by a unique separator; also returns the start of each row."""
    sizes = np.array([len(row) + 1 for row in rows], np.int64)
    starts = np.cumsum(sizes) - sizes
    text = np.zeros(int(sizes.sum()), np.int64)
    ends = starts + sizes - 1
    is_symbol = np.ones(len(text), bool)
    is_symbol[ends] = False
    text[is_symbol] = np.concatenate(rows)
    text[ends] = -1 - np.arange(len(rows))
    return np.unique(text, return_inverse=True)[1].astype(np.int32), starts


def _iter_ranks(text: Ranks, longest: int) -> Iterator[Ranks]:
    """Yields the rank (S,) of the substring at each position among all of its length: 1, 2, 4 and so on.

    It ends when all ranks differ or the length exceeds the longest piece.
    """
    rank, length = text, 1
    yield rank
    while length < longest and int(rank.max()) < len(text) - 1:
        key = rank.astype(np.int64) * (len(text) + 1)
        key[:-length] += rank[length:] + 1
        order = np.argsort(key)
        ascending = key[order]
        rank = np.empty(len(text), np.int32)
        rank[order] = np.cumsum(np.diff(ascending, prepend=ascending[:1]) != 0, dtype=np.int32)
        length *= 2
        yield rank


def _find_train_neighbors(order: Symbols, first_train: int) -> Iterator[Symbols]:
    """Yields, for each position before `first_train`, the nearest train position before and after it in
    suffix order; -1 where there is none.
    """
    is_train = order >= first_train
    index = np.arange(len(order))
    rank = np.empty(len(order), np.int64)
    rank[order] = index
    ours = rank[:first_train]
    before = np.maximum.accumulate(np.where(is_train, index, -1))[ours]
    after = np.minimum.accumulate(np.where(is_train, index, len(order))[::-1])[::-1][ours]
    for nearest, there in ((before, before >= 0), (after, after < len(order))):
        yield np.where(there, order[np.clip(nearest, 0, len(order) - 1)], -1)


def _count_shared(levels: Sequence[Ranks], ours: Symbols, theirs: Symbols) -> Symbols:
    """Returns the lengths (N,) of the common prefixes at pairs of positions; 0 where the second is -1."""
    shared = np.zeros(len(ours), np.int64)
    possible = theirs >= 0
    for level in range(len(levels) - 1, -1, -1):
        rank = levels[level]
        alike = rank[ours + shared] == rank[theirs + shared]
        shared += np.where(possible & alike, 1 << level, 0)
    return shared
