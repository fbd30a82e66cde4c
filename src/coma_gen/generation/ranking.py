"""Which of several continuations is most like its prompt, by measures of the music.

Likelihood is no guide: what a model finds likeliest is dull. Here density, polyphony, loudness and mean
length of the notes count by their ratio to the prompt's, and the share of notes in the prompt's scale by its
difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from coma_gen.midi.measures import (
    duration,
    nearest_scale,
    notes_per_second,
    polyphony,
    share_in_scale,
    velocity,
)
from coma_gen.midi.notes import Notes

if TYPE_CHECKING:
    from coma_gen.generation.generate import Continuation

RATIOS: tuple[Callable[[Notes], float], ...] = (notes_per_second, polyphony, velocity, duration)
RATIO_UNIT, SHARE_UNIT = math.log(1.25), 0.1
"""A quarter more, or a tenth of the notes, counts as 1."""
LEAST = 1e-3


def distance_from(prompt: Notes, new: Notes) -> float:
    """The mean of the five differences; infinite for music without notes."""
    if not len(new):
        return math.inf
    ratios = [max(measure(new), LEAST) / max(measure(prompt), LEAST) for measure in RATIOS]
    scale = nearest_scale(prompt)
    share = share_in_scale(new, scale) - share_in_scale(prompt, scale)
    differences = [abs(math.log(ratio)) / RATIO_UNIT for ratio in ratios] + [abs(share) / SHARE_UNIT]
    return math.fsum(differences) / len(differences)


def nearest(pieces: Sequence[Continuation], num: int) -> list[Continuation]:
    """The `num` continuations nearest to their prompts, the nearest first; each says what all cost."""
    distances = [distance_from(piece.prompt, piece.new) for piece in pieces if piece.prompt is not None]
    drawn = sum(piece.tokens + piece.redrawn for piece in pieces)
    return [
        replace(pieces[index], draw=index + 1, distance=distances[index], tokens_of_all_draws=drawn)
        for index in np.argsort(distances, kind="stable")[:num].tolist()
    ]
