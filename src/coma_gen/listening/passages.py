"""Beginnings of test pieces, with what follows there and with another passage of the same piece.

Taken from the shards, so that all music that is compared went through one tokenizer.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.seeding import generator
from coma_gen.evaluation.excerpts import decode_piece
from coma_gen.generation.stage import excerpt
from coma_gen.midi.notes import Notes
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class Passage:
    """A place in a performance.

    Attributes:
        midi_filename: of the performance.
        start: seconds from its beginning to the prompt's.
        prompt: its times counted from its first note.
        real: what follows, its times counted from the prompt's last onset, as those of new music are.
        other: another passage of the piece, as long as `real` and apart from both.
        other_start: seconds from the performance's beginning to that.
    """

    midi_filename: str
    start: float
    prompt: Notes
    real: Notes
    other: Notes
    other_start: float


@dataclass(frozen=True)
class Found:
    """Passages, and what was left out.

    Attributes:
        passages: in the order of the split.
        too_short: how many performances are too short for one.
        without_notes: how many places have a part without notes.
    """

    passages: list[Passage]
    too_short: int
    without_notes: int


def following(notes: Notes, splice: float, seconds: float) -> Notes:
    """What begins after `splice`, within so many seconds; its times counted from there."""
    after = float(np.nextafter(splice, np.inf))
    return notes.between(after, splice + seconds).shifted(-splice)


def find_passages(
    split: ShardedSplit,
    vocabulary: Vocabulary,
    *,
    count: int,
    prompt_seconds: float,
    seconds: float,
    seed: int,
) -> Found:
    """Passages of a split, evenly over its performances as they were played; long ones give more.

    Args:
        split: the tokens.
        vocabulary: of the tokens.
        count: of passages, where there are as many that do not overlap.
        prompt_seconds: of each prompt.
        seconds: of what follows, and of the other passage.
        seed: of where the other passage begins.

    Raises:
        UserError: the split has no performance that is long enough.
    """
    whole = prompt_seconds + seconds
    lengths = [float(value) for value in split.index["seconds"].iloc[split.originals]]
    rows = [row for row, length in zip(split.originals, lengths, strict=True) if length >= whole + seconds]
    if not rows:
        rule = f"must have a performance of {whole + seconds:g} s or more"
        raise UserError(Fault(f"{split.folder}/{split.split}", rule, f"at most {max(lengths):.0f} s"))
    spans = [
        (int(row), index * whole)
        for row in rows
        for index in range(int(split.index["seconds"].iloc[row] // whole))
    ]
    number = min(count, len(spans))
    wanted: dict[int, list[float]] = defaultdict(list)
    for index in range(number):
        row, start = spans[(2 * index + 1) * len(spans) // (2 * number)]
        wanted[row].append(start)
    found = []
    for row, starts in wanted.items():
        notes, name = decode_piece(split, row, vocabulary), str(split.index["midi_filename"].iloc[row])
        for start in starts:
            prompt = excerpt(notes, start, prompt_seconds)
            splice = start_of(notes, start) + prompt.end_of_onsets
            real = following(notes, splice, seconds)
            elsewhere = _elsewhere(notes, start, splice + seconds, seconds, seed, row)
            other = following(notes, elsewhere, seconds)
            if len(prompt) and len(real) and len(other):
                found.append(Passage(name, start, prompt, real, other, elsewhere))
    return Found(found, len(lengths) - len(rows), number - len(found))


def start_of(notes: Notes, start: float) -> float:
    """When the first note at or after a moment begins; the moment itself where none does."""
    later = notes.onset[notes.onset >= start]
    return float(later[0]) if len(later) else start


def _elsewhere(notes: Notes, begin: float, end: float, seconds: float, seed: int, row: int) -> float:
    """Where a passage starts that ends before `begin` or starts after `end`, all such places being equally
    likely; the end of the notes where there is none.
    """
    before, behind = (max(0.0, room - seconds) for room in (begin, notes.end_of_onsets - end))
    if before + behind <= 0:
        return notes.end_of_onsets
    offset = float(generator(seed, "another passage", row, round(begin * 1000)).random()) * (before + behind)
    return offset if offset < before else end + offset - before
