"""Excerpts of real music, of the samples' length, for comparison with samples.

They are decoded from the shards, so pedal, grid and bins match those of the samples: differences are due to
the model, not to the tokenizer (whose losses the fit_tokenizer stage reports).
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
    """An excerpt of one performance.

    Attributes:
        midi_filename: File of the performance.
        start: Seconds from its beginning.
        notes: Notes of the excerpt, with times relative to the first.
    """

    midi_filename: str
    start: float
    notes: Notes


def decode_piece(split: ShardedSplit, row: int, vocabulary: Vocabulary) -> Notes:
    """Decodes a row of the shards."""
    return to_notes(decode_grid(vocabulary.expanded(split.piece(row)), vocabulary), vocabulary)


def cut_excerpts(split: ShardedSplit, vocabulary: Vocabulary, *, count: int, seconds: float) -> list[Excerpt]:
    """Cuts at most `count` excerpts, spaced evenly over the unaugmented performances of a split.

    Each performance is divided into spans of `seconds` (at least one), and every n-th of all spans is taken:
    excerpts do not overlap, and longer performances give more. Spans without notes are dropped.
    """
    spans = [
        (int(row), number)
        for row in split.originals
        for number in range(max(1, int(split.index["seconds"].iloc[row] // seconds)))
    ]
    number = min(count, len(spans))
    starts_of = defaultdict(list)
    for index in range(number):
        row, slot = spans[(2 * index + 1) * len(spans) // (2 * number)]
        starts_of[row].append(slot * seconds)
    found = []
    for row, starts in starts_of.items():
        notes, name = decode_piece(split, row, vocabulary), str(split.index["midi_filename"].iloc[row])
        cut = [Excerpt(name, start, excerpt(notes, start, seconds)) for start in starts]
        found += [part for part in cut if len(part.notes)]
    return found
