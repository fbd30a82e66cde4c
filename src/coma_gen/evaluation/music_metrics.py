"""What a piece of music is like, in numbers that no model is needed for.

Each measure is one number of one piece, and says what kind of music it is, not how good. Time is in seconds
throughout: performances have no beats that could be known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.memorization import symbols
from coma_gen.midi.measures import (
    duration,
    longest_stay,
    nearest_scale,
    notes_per_second,
    polyphony,
    share_in_scale,
    velocity,
)
from coma_gen.midi.notes import Notes

CHORD_SECONDS = 0.03
"""Notes that begin so soon after the one before belong to its chord."""
GROOVE_SECONDS, GROOVE_STEPS = 2.0, 40
"""A span of rhythm, and the steps that onsets are put into: 50 ms each."""
FRAME_SECONDS = 0.5
"""Of the frames whose harmony is compared with that of later ones."""
SHORTEST_RETURN = 8
"""Frames in a row that must have a counterpart, for the lag between them to count."""
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


def notes_outside_key(notes: Notes) -> float:
    """Share of notes outside of the one diatonic scale that holds most of them."""
    return 1 - share_in_scale(notes, nearest_scale(notes))


def return_3_to_8(notes: Notes) -> float:
    """How much more alike the harmony is to that of 3 to 8 s later than to any: see `_best_return`."""
    return _best_return(notes, 3.0, 8.0)


def return_8_to_15(notes: Notes) -> float:
    """The same, 8 to 15 s later."""
    return _best_return(notes, 8.0, 15.0)


def return_from_15(notes: Notes) -> float:
    """The same, 15 s later or more."""
    return _best_return(notes, 15.0, np.inf)


def _best_return(notes: Notes, shortest: float, longest: float) -> float:
    """The best mean similarity of frames to those one lag later, less the mean over all pairs of frames.

    A frame's harmony is how long each pitch class sounds in it; two are as similar as the cosine between
    them. In a piece that returns as it was after one of the lags that is 1 before the mean is taken off. The
    idea is that of the structureness indicator (Wu and Yang 2020), whose spans of time these are; theirs is
    worked out from sound. 0 where the piece is too short for the lags.
    """
    frames = int(notes.end // FRAME_SECONDS)
    first = round(shortest / FRAME_SECONDS)
    lags = range(first, int(min(longest / FRAME_SECONDS, frames - SHORTEST_RETURN + 1)))
    if not lags:
        return 0.0
    begin = np.arange(frames)[:, None] * FRAME_SECONDS
    overlap = np.minimum(notes.onset + notes.duration, begin + FRAME_SECONDS) - np.maximum(notes.onset, begin)
    harmony = np.clip(overlap, 0.0, None) @ np.eye(12)[notes.pitch % 12]
    size = np.linalg.norm(harmony, axis=1, keepdims=True)
    harmony = harmony / np.where(size > 0, size, 1.0)
    alike = harmony @ harmony.T
    return float(
        max(np.diagonal(alike, lag).mean() for lag in lags) - alike[np.triu_indices(frames, 1)].mean()
    )


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
        notes_outside_key,
        return_3_to_8,
        return_8_to_15,
        return_from_15,
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
