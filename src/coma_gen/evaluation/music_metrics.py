"""Measures of music that need no model.

Each measure is one number per piece. It describes the music; it does not rate it. Time is in seconds
throughout, because the beats of a performance are unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.evaluation.memorization import encode_steps
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
"""A note that begins within this time of the previous one belongs to its chord."""
GROOVE_SECONDS, GROOVE_STEPS = 2.0, 40
"""Length of a rhythmic span, and its number of steps (50 ms each)."""
FRAME_SECONDS = 0.5
"""Length of the frames whose harmony is compared with that of later frames."""
SHORTEST_RETURN = 8
"""Minimum number of frames that a lag must leave to compare."""
REPEATED_NOTES = 5
"""Notes per figure whose earlier occurrence counts as repetition."""


def pitch_class_entropy(notes: Notes) -> float:
    """Entropy of the twelve pitch classes in bits: 0 for a single one, log2(12) = 3.58 if uniform."""
    share = np.bincount(notes.pitch % 12, minlength=12) / max(1, len(notes))
    used = share[share > 0]
    return float(-(used * np.log2(used)).sum())


def pitch_range(notes: Notes) -> float:
    """Interval in semitones between the lowest and the highest note."""
    return float(notes.pitch.max()) - float(notes.pitch.min())


def inter_onset(notes: Notes) -> float:
    """Mean time in seconds from one note or chord to the next; 0 where there is only one."""
    first = notes.onset[np.diff(notes.onset, prepend=-np.inf) > CHORD_SECONDS]
    return float(np.diff(first).mean()) if len(first) > 1 else 0.0


def groove_similarity(notes: Notes) -> float:
    """Rhythmic similarity of consecutive spans of two seconds.

    It is the fraction of 50 ms steps that have an onset in both spans or in neither (Wu and Yang 2020, "The
    Jazz Transformer on the Front Line", defined on bars); 0 where the music is only one span long.
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
    """Fraction of five-note figures (intervals and times between notes) that occurred before in the piece, at
    any pitch; 0 for fewer than five notes.
    """
    steps = encode_steps(notes)
    if len(steps) < REPEATED_NOTES - 1:
        return 0.0
    figures = np.lib.stride_tricks.sliding_window_view(steps, REPEATED_NOTES - 1)
    return 1 - len(np.unique(figures, axis=0)) / len(figures)


def stay_on_three_keys(notes: Notes) -> float:
    """Duration in seconds, first to last onset, of the longest passage on at most three keys."""
    first, last = longest_stay(notes.onset, notes.pitch)
    return float(notes.onset[last] - notes.onset[first]) if len(notes) else 0.0


def notes_outside_key(notes: Notes) -> float:
    """Fraction of notes outside the diatonic scale that contains most of them."""
    return 1 - share_in_scale(notes, nearest_scale(notes))


def return_3_to_8(notes: Notes) -> float:
    """Excess similarity of the harmony to that of 3 to 8 s later: see `_compute_best_return`."""
    return _compute_best_return(notes, 3.0, 8.0)


def return_8_to_15(notes: Notes) -> float:
    """Excess similarity of the harmony to that of 8 to 15 s later: see `_compute_best_return`."""
    return _compute_best_return(notes, 8.0, 15.0)


def return_from_15(notes: Notes) -> float:
    """Excess similarity of the harmony to that of at least 15 s later: see `_compute_best_return`."""
    return _compute_best_return(notes, 15.0, np.inf)


def _compute_best_return(notes: Notes, shortest: float, longest: float) -> float:
    """Highest mean similarity of frames to those one lag later, minus the mean over all pairs of frames.

    The harmony of a frame is how long each pitch class sounds in it; similarity is the cosine. A piece that
    repeats exactly after one of the lags scores 1 before the mean is subtracted. The measure follows the
    structureness indicator of Wu and Yang 2020, with its time spans; theirs is computed from audio. It is 0
    where the piece is too short for the lags.
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
    """Returns measure -> values (N,) of N pieces with notes; time counts from the first onset."""
    shifted = [
        notes.between(float(notes.onset.min()), np.inf).shifted(-float(notes.onset.min())) for notes in pieces
    ]
    return {
        name: np.array([measure(notes) for notes in shifted], np.float64)
        for name, measure in MEASURES.items()
    }
