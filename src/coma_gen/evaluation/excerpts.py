"""Real music to hold samples against: excerpts of their length, as the tokenizer writes music down.

Taken from the shards, so that held pedals, grids and bins are those of the samples: what differs is the
model's doing, not the tokenizer's (whose losses the fit_tokenizer stage reports).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from coma_gen.generation.stage import excerpt
from coma_gen.midi.notes import Notes
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.codec import decode_grid
from coma_gen.tokenizer.grid import to_notes
from coma_gen.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class Excerpt:
    """Some seconds of one performance.

    Attributes:
        midi_filename: which one.
        start: seconds from its beginning.
        notes: what begins there, its times counted from the first note.
    """

    midi_filename: str
    start: float
    notes: Notes


def music_of(split: ShardedSplit, row: int, vocabulary: Vocabulary) -> Notes:
    """A piece of the shards as music."""
    return to_notes(decode_grid(vocabulary.expanded(split.piece(row)), vocabulary), vocabulary)


def excerpts(split: ShardedSplit, vocabulary: Vocabulary, *, count: int, seconds: float) -> list[Excerpt]:
    """At most `count` excerpts, evenly over a split's performances as they were played.

    Performances are cut into as many spans of `seconds` as they hold (one at least), and of the row of all
    spans every n-th is taken: no two overlap, and long performances give more. Spans without a note are
    left out.
    """
    spans = [
        (int(row), number)
        for row in split.originals
        for number in range(max(1, int(split.index["seconds"].iloc[row] // seconds)))
    ]
    number = min(count, len(spans))
    wanted = defaultdict(list)
    for index in range(number):
        row, slot = spans[(2 * index + 1) * len(spans) // (2 * number)]
        wanted[row].append(slot * seconds)
    found = []
    for row, starts in wanted.items():
        notes, name = music_of(split, row, vocabulary), str(split.index["midi_filename"].iloc[row])
        cut = [Excerpt(name, start, excerpt(notes, start, seconds)) for start in starts]
        found += [part for part in cut if len(part.notes)]
    return found
