"""The sustain pedal as longer notes: what sounds until the dampers fall, as if the fingers held it."""

from __future__ import annotations

import numpy as np

from coma_gen.music.notes import Notes


def extend(notes: Notes) -> Notes:
    """Holds every note that ends under the pedal until the pedal rises, and leaves no pedal.

    A held note is cut where the same key is struck again, for the hammer ends what the string did before. No
    note gets shorter than it was played. A pedal that falls at the very moment a note ends comes too late for
    it.

        key     ████            ████        played
        pedal     ▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔
        heard   ███████████████ ███████████
    """
    end = notes.onset + notes.duration
    held = end.copy()
    if len(notes.pedal):
        down, up = notes.pedal.T
        at = np.searchsorted(down, end, side="left") - 1
        under = (at >= 0) & (end < up[at])
        held[under] = up[at[under]]
    released = np.minimum(held, np.maximum(end, _next_onsets(notes)))
    lengthened = released > end
    duration = np.where(lengthened, released - notes.onset, notes.duration)
    return Notes.of(notes.onset, duration, notes.pitch, notes.velocity)


def _next_onsets(notes: Notes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(N,) seconds at which the same pitch is struck next, later than this note; infinity for the last."""
    following = np.full(len(notes), np.inf)
    for pitch in np.unique(notes.pitch):
        where = np.flatnonzero(notes.pitch == pitch)
        onsets = notes.onset[where]
        after = np.append(onsets, np.inf)
        following[where] = after[np.searchsorted(onsets, onsets, side="right")]
    return following
