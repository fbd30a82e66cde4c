"""Prompts from test pieces, with the real continuation and with another passage of the same piece.

They are decoded from the shards, so that all compared music has passed through the same tokenizer.
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
    """A passage of a performance, divided into a prompt and its real continuation.

    Attributes:
        midi_filename: File of the performance.
        start: Start of the prompt in seconds of the performance.
        prompt: Notes of the prompt, with times relative to its first note.
        real: Real continuation, with times relative to the prompt's last onset, as for generated music.
        other: Another passage of the piece, as long as `real`, overlapping neither.
        other_start: Start of `other` in seconds of the performance.
    """

    midi_filename: str
    start: float
    prompt: Notes
    real: Notes
    other: Notes
    other_start: float


@dataclass(frozen=True)
class PassageSearch:
    """Passages of a split, and the number of those dropped.

    Attributes:
        passages: Passages in the order of the split.
        too_short: Number of performances that are too short.
        without_notes: Number of passages dropped because a part has no notes.
    """

    passages: list[Passage]
    too_short: int
    without_notes: int


def cut_continuation(notes: Notes, splice: float, seconds: float) -> Notes:
    """Returns the notes that begin within `seconds` after `splice`, relative to it."""
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
) -> PassageSearch:
    """Selects passages spaced evenly over the unaugmented performances of a split.

    Args:
        split: Shards of the split.
        vocabulary: Vocabulary of the tokens.
        count: Number of passages; fewer where there are not as many without overlap.
        prompt_seconds: Length of each prompt.
        seconds: Length of the continuation and of the other passage.
        seed: Seed of the start of the other passage.

    Raises:
        UserError: No performance of the split is long enough.
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
    starts_of: dict[int, list[float]] = defaultdict(list)
    for index in range(number):
        row, start = spans[(2 * index + 1) * len(spans) // (2 * number)]
        starts_of[row].append(start)
    found = []
    for row, starts in starts_of.items():
        notes, name = decode_piece(split, row, vocabulary), str(split.index["midi_filename"].iloc[row])
        for start in starts:
            prompt = excerpt(notes, start, prompt_seconds)
            splice = first_onset_after(notes, start) + prompt.end_of_onsets
            real = cut_continuation(notes, splice, seconds)
            other_start = _choose_other_start(notes, start, splice + seconds, seconds, seed, row)
            other = cut_continuation(notes, other_start, seconds)
            if len(prompt) and len(real) and len(other):
                found.append(Passage(name, start, prompt, real, other, other_start))
    return PassageSearch(found, len(lengths) - len(rows), number - len(found))


def first_onset_after(notes: Notes, start: float) -> float:
    """Returns the first onset at or after `start`; `start` itself where there is none."""
    later = notes.onset[notes.onset >= start]
    return float(later[0]) if len(later) else start


def _choose_other_start(notes: Notes, begin: float, end: float, seconds: float, seed: int, row: int) -> float:
    """Draws the start of a passage that ends before `begin` or starts after `end`, uniformly.

    Returns the last onset where there is no such passage.
    """
    before, after = (max(0.0, space - seconds) for space in (begin, notes.end_of_onsets - end))
    if before + after <= 0:
        return notes.end_of_onsets
    offset = float(generator(seed, "another passage", row, round(begin * 1000)).random()) * (before + after)
    return offset if offset < before else end + offset - before
