"""Ranks continuations by their musical distance from the prompt.

Likelihood does not rank music well: the most likely continuations are dull. The distance compares density,
polyphony, loudness and mean note length by their ratio to the prompt's, and the fraction of notes in the
prompt's scale by its difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from coma_gen.generation.continuation import Continuation
from coma_gen.midi.measures import (
    duration,
    nearest_scale,
    notes_per_second,
    polyphony,
    share_in_scale,
    velocity,
)
from coma_gen.midi.notes import Notes

RATIOS: tuple[Callable[[Notes], float], ...] = (notes_per_second, polyphony, velocity, duration)
RATIO_UNIT, SHARE_UNIT = math.log(1.25), 0.1
"""Differences that count as 1: a ratio of 1.25, or a tenth of the notes."""
LEAST = 1e-3


def distance_from(prompt: Notes, new: Notes) -> float:
    """Returns the mean of the five differences; infinity for music without notes."""
    if not len(new):
        return math.inf
    ratios = [max(measure(new), LEAST) / max(measure(prompt), LEAST) for measure in RATIOS]
    scale = nearest_scale(prompt)
    share = share_in_scale(new, scale) - share_in_scale(prompt, scale)
    differences = [abs(math.log(ratio)) / RATIO_UNIT for ratio in ratios] + [abs(share) / SHARE_UNIT]
    return math.fsum(differences) / len(differences)


def nearest(pieces: Sequence[Continuation], num: int) -> list[Continuation]:
    """Selects the `num` continuations nearest to their prompts, the nearest first.

    Each also records the number of tokens that were sampled for all of them.
    """
    distances = [distance_from(piece.prompt, piece.new) for piece in pieces if piece.prompt is not None]
    drawn = sum(piece.tokens + piece.redrawn for piece in pieces)
    return [
        replace(pieces[index], draw=index + 1, distance=distances[index], tokens_of_all_draws=drawn)
        for index in np.argsort(distances, kind="stable")[:num].tolist()
    ]
