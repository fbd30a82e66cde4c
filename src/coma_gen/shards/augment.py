"""Variations of the train split: tables to look up window by window, or copies on disk where no table can
serve.

Transposition and loudness are a renaming of base tokens, so one table a variation is enough and costs no
disk. Under byte-pair encoding an id holds several pitches and has no counterpart: there each performance
is written once for each transposition, with a loudness of its own. Another tempo is other tokens in
either case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coma_gen.config.schema import ShardParams
from coma_gen.core.seeding import generator
from coma_gen.tokenizer.vocabulary import Ids, Vocabulary


@dataclass(frozen=True)
class Augmentation:
    """One way to write a performance down.

    Attributes:
        number: 0 as played.
        tempo_factor: 2.0 is twice as fast.
        semitones: of transposition.
        velocity_bins: louder by so many bins.
    """

    number: int
    tempo_factor: float = 1.0
    semitones: int = 0
    velocity_bins: int = 0


IDENTITY = Augmentation(0)


def augmentations_for(
    params: ShardParams, midi_filename: str, *, byte_pairs: bool
) -> tuple[Augmentation, ...]:
    """What is written of a performance of the train split, as played first.

    Under byte pairs the loudness of a copy is drawn from the file's name and the copy's number, so that
    it depends on neither the order nor the number of performances.
    """
    span = params.transpose if byte_pairs else 0
    kinds = [(factor, steps) for factor in (1.0, *params.tempo_factors) for steps in range(-span, span + 1)]
    kinds.remove((1.0, 0))
    widest = params.velocity_shift if byte_pairs else 0
    copies = [IDENTITY]
    for number, (factor, steps) in enumerate(kinds, start=1):
        draw = generator(0, f"loudness/{midi_filename}", number)
        copies.append(Augmentation(number, factor, steps, int(draw.integers(-widest, widest + 1))))
    return tuple(copies)


def shift_tables(params: ShardParams, vocabulary: Vocabulary) -> tuple[Ids, list[tuple[int, int]]]:
    """(K, V) one table a variation, and its (semitones, velocity bins); only the identity under byte
    pairs.
    """
    kinds = [(0, 0)]
    if not vocabulary.learned:
        steps = range(-params.transpose, params.transpose + 1)
        bins = range(-params.velocity_shift, params.velocity_shift + 1)
        kinds += [(step, louder) for step in steps for louder in bins if (step, louder) != (0, 0)]
        return np.stack([vocabulary.shift_table(step, louder) for step, louder in kinds]), kinds
    return np.arange(len(vocabulary), dtype=np.uint16)[None], kinds
