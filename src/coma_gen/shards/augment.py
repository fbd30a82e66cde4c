"""Data augmentation of the train split: token maps applied to each window, or augmented copies on disk.

Transpositions and velocity shifts map base tokens to base tokens, so one lookup table per variation suffices.
Under byte-pair encoding the shifted ids need not exist, so each performance is written once per
transposition, with a random velocity shift. Tempo changes need copies in both cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coma_gen.config.schema import ShardParams
from coma_gen.core.seeding import generator
from coma_gen.tokenizer.vocabulary import Ids, Vocabulary


@dataclass(frozen=True)
class Augmentation:
    """One augmented copy of a performance.

    Attributes:
        number: Number of the copy; 0 is the original.
        tempo_factor: Relative tempo; 2.0 is twice as fast.
        semitones: Transposition in semitones.
        velocity_bins: Velocity shift in bins.
    """

    number: int
    tempo_factor: float = 1.0
    semitones: int = 0
    velocity_bins: int = 0


IDENTITY = Augmentation(0)


def augmentations_for(
    params: ShardParams, midi_filename: str, *, byte_pairs: bool
) -> tuple[Augmentation, ...]:
    """Returns the copies to write of a performance of the train split, the original first.

    Under BPE the velocity shift of a copy is seeded by the file name and the number of the copy, so it
    depends on neither the order nor the number of performances.
    """
    span = params.transpose if byte_pairs else 0
    kinds = [(factor, steps) for factor in (1.0, *params.tempo_factors) for steps in range(-span, span + 1)]
    kinds.remove((1.0, 0))
    widest = params.velocity_shift if byte_pairs else 0
    copies = [IDENTITY]
    for number, (factor, steps) in enumerate(kinds, start=1):
        rng = generator(0, f"loudness/{midi_filename}", number)
        copies.append(Augmentation(number, factor, steps, int(rng.integers(-widest, widest + 1))))
    return tuple(copies)


def shift_tables(params: ShardParams, vocabulary: Vocabulary) -> tuple[Ids, list[tuple[int, int]]]:
    """Returns the shift tables (K, V) and their (semitones, velocity bins); under BPE only the identity."""
    kinds = [(0, 0)]
    if not vocabulary.learned:
        steps = range(-params.transpose, params.transpose + 1)
        bins = range(-params.velocity_shift, params.velocity_shift + 1)
        kinds += [(step, louder) for step in steps for louder in bins if (step, louder) != (0, 0)]
        return np.stack([vocabulary.shift_table(step, louder) for step, louder in kinds]), kinds
    return np.arange(len(vocabulary), dtype=np.uint16)[None], kinds
