"""Plain measures of notes: how dense, loud and long they are, in which scale, how long they stay on few keys.

Sampling ranks and watches what it draws by them, and evaluation holds samples against real music by them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coma_gen.midi.notes import Notes

Flags = npt.NDArray[np.bool_]
FEW_KEYS = 3
"""Music stays somewhere while it strikes no more keys than these."""
DIATONIC: Flags = np.array(
    [np.roll([1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1], tonic) for tonic in range(12)], bool
)
"""(12, 12) the pitch classes of each major scale, by its tonic. Natural minor scales have the same notes."""


def notes_per_second(notes: Notes) -> float:
    """Notes by the seconds from the first onset to the last release, at least one second."""
    return len(notes) / max(1.0, notes.end - float(notes.onset.min()))


def polyphony(notes: Notes) -> float:
    """Notes that sound at once, on average over the time when any does."""
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
    """Mean seconds that a note is held, by the pedal too where it was written into the notes."""
    return float(notes.duration.mean())


def nearest_scale(notes: Notes) -> Flags:
    """(12,) the diatonic scale that has most of the notes; of equal ones the first from C upwards."""
    counts = np.bincount(notes.pitch % 12, minlength=12)
    return np.asarray(DIATONIC[(DIATONIC * counts).sum(1).argmax()], np.bool_)


def share_in_scale(notes: Notes, scale: Flags) -> float:
    """Share of the notes whose pitch class is one of a scale's (12,); 0 for no notes."""
    return float(scale[notes.pitch % 12].mean()) if len(notes) else 0.0


def longest_stay(onset: npt.NDArray[np.floating], pitch: npt.NDArray[np.integer]) -> tuple[int, int]:
    """The first and last note of the longest stay: notes in a row on at most `FEW_KEYS` keys, by the seconds
    from the first onset to the last; of equal ones the first. (0, 0) for no notes.
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
