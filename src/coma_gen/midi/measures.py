"""Simple measures of notes: density, loudness, length, scale, and passages on few keys.

Sampling uses them to rank continuations and to detect loops, evaluation to compare samples with real music.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coma_gen.midi.notes import Notes

Flags = npt.NDArray[np.bool_]
FEW_KEYS = 3
"""Maximum number of different keys of a passage found by `longest_stay`."""
DIATONIC: Flags = np.array(
    [np.roll([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1], tonic) for tonic in range(12)], bool
)
"""(12, 12) the pitch classes of each major scale, by tonic. Natural minor scales have the same notes."""


def notes_per_second(notes: Notes) -> float:
    """Number of notes divided by the seconds from the first onset to the last release (at least 1 s)."""
    return len(notes) / max(1.0, notes.end - float(notes.onset.min()))


def polyphony(notes: Notes) -> float:
    """Mean number of simultaneous notes while any note sounds."""
    if not len(notes):
        return 0.0
    times = np.concatenate([notes.onset, notes.onset + notes.duration])
    change = np.concatenate([np.ones(len(notes)), -np.ones(len(notes))])
    order = np.lexsort((change, times))
    sounding, length = np.cumsum(change[order])[:-1], np.diff(times[order])
    busy = float(length[sounding > 0].sum())
    return float((sounding * length).sum()) / busy if busy else 0.0


def velocity(notes: Notes) -> float:
    """Mean MIDI velocity."""
    return float(notes.velocity.mean())


def duration(notes: Notes) -> float:
    """Mean note duration in seconds, including the pedal where durations include it."""
    return float(notes.duration.mean())


def nearest_scale(notes: Notes) -> Flags:
    """Returns the diatonic scale (12,) that contains most notes; ties are broken from C upwards."""
    counts = np.bincount(notes.pitch % 12, minlength=12)
    return np.asarray(DIATONIC[(DIATONIC * counts).sum(1).argmax()], np.bool_)


def share_in_scale(notes: Notes, scale: Flags) -> float:
    """Fraction of notes whose pitch class is in a scale (12,); 0 for no notes."""
    return float(scale[notes.pitch % 12].mean()) if len(notes) else 0.0


def longest_stay(onset: npt.NDArray[np.floating], pitch: npt.NDArray[np.integer]) -> tuple[int, int]:
    """Finds the first and last note of the longest passage of consecutive notes on at most `FEW_KEYS` keys.

    Length is measured in seconds between the first and last onset; of equal passages the first is returned.
    (0, 0) for no notes.
    """
    best, first = (0, 0), 0
    struck: dict[int, int] = {}
    times, keys = onset.tolist(), pitch.tolist()
    for last, key in enumerate(keys):
        struck[key] = struck.get(key, 0) + 1
        while len(struck) > FEW_KEYS:
            struck[keys[first]] -= 1
            if not struck[keys[first]]:
                del struck[keys[first]]
            first += 1
        if times[last] - times[first] > times[best[1]] - times[best[0]]:
            best = (first, last)
    return best
