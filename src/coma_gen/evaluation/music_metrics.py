"""What a piece of music is like, in numbers that no model is needed for.

Each measure is one number of one piece, and says what kind of music it is, not how good. Time is in seconds
throughout: performances have no beats that could be known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.memorization import symbols
from coma_gen.midi.measures import duration, longest_stay, notes_per_second, polyphony, velocity
from coma_gen.midi.notes import Notes

CHORD_SECONDS = 0.03
"""Notes that begin so soon after the one before belong to its chord."""
GROOVE_SECONDS, GROOVE_STEPS = 2.0, 40
"""A span of rhythm, and the steps that onsets are put into: 50 ms each."""
REPEATED_NOTES = 5
"""A figure of so many notes is looked for in what came before."""


def pitch_class_entropy(notes: Notes) -> float:
    """Entropy in bits of the twelve pitch classes: 0 for one, log2(12) = 3.58 for all alike."""
    share = np.bincount(notes.pitch % 12, minlength=12) / max(1, len(notes))
    used = share[share > 0]
    return float(-(used * np.log2(used)).sum())


def pitch_range(notes: Notes) -> float:
    """Semitones from the lowest note to the highest."""
    return float(notes.pitch.max()) - float(notes.pitch.min())


def inter_onset(notes: Notes) -> float:
    """Seconds from one note or chord to the next, on average; 0 where there is one only."""
    first = notes.onset[np.diff(notes.onset, prepend=-np.inf) > CHORD_SECONDS]
    return float(np.diff(first).mean()) if len(first) > 1 else 0.0


def groove_similarity(notes: Notes) -> float:
    """How alike the rhythms of spans of two seconds are to the next ones: the share of 50 ms steps that have
    an onset in both or in neither (Wu and Yang 2020, "The Jazz Transformer on the Front Line", on bars); 0
    where the music is one span only.
    """
    spans = int(notes.end // GROOVE_SECONDS) + 1
    if spans < 2:
        return 0.0
    steps = np.floor(notes.onset * (GROOVE_STEPS / GROOVE_SECONDS) + 1e-6).astype(np.int64)
    rhythm = np.zeros(spans * GROOVE_STEPS, bool)
    rhythm[np.minimum(steps, len(rhythm) - 1)] = True
    pattern = rhythm.reshape(spans, GROOVE_STEPS)
    return float((pattern[1:] == pattern[:-1]).mean())


def self_repetition(notes: Notes) -> float:
    """Share of the figures of five notes, as intervals and times between them, that were there before in the
    same piece, at whatever pitch; 0 where there is none.
    """
    steps = symbols(notes)
    if len(steps) < REPEATED_NOTES - 1:
        return 0.0
    figures = np.lib.stride_tricks.sliding_window_view(steps, REPEATED_NOTES - 1)
    return 1 - len(np.unique(figures, axis=0)) / len(figures)


def stay_on_three_keys(notes: Notes) -> float:
    """Seconds from the first onset to the last of the longest row of notes on three keys or fewer."""
    first, last = longest_stay(notes.onset, notes.pitch)
    return float(notes.onset[last] - notes.onset[first]) if len(notes) else 0.0


MEASURES: dict[str, Callable[[Notes], float]] = {
    measure.__name__: measure
    for measure in (
        pitch_class_entropy,
        pitch_range,
        notes_per_second,
        polyphony,
        inter_onset,
        velocity,
        duration,
        groove_similarity,
        self_repetition,
        stay_on_three_keys,
    )
}


def measure_all(pieces: Sequence[Notes]) -> dict[str, npt.NDArray[np.float64]]:
    """Measure -> its value (N,) for each of N pieces that have notes; time counts from the first onset."""
    begun = [
        notes.between(float(notes.onset.min()), np.inf).shifted(-float(notes.onset.min())) for notes in pieces
    ]
    return {
        name: np.array([measure(notes) for notes in begun], np.float64) for name, measure in MEASURES.items()
    }
