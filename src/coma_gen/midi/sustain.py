"""The sustain pedal as longer notes: what sounds until the dampers fall, as if the fingers held it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.midi.notes import Notes, Seconds


def apply_sustain(notes: Notes) -> Notes:
    """Holds every note that ends under the pedal until the pedal rises, and leaves no pedal.

    A held note is cut where the same key is struck again, for the hammer ends what the string did before. No
    note gets shorter than it was played. A pedal that falls at the very time a note ends comes too late for
    it.

        key     ████            ████        played
        pedal     ▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔
        heard   ███████████████ ███████████
    """
    return apply_sustain_per_voice(notes, [notes.pedal], np.zeros(len(notes), np.int64))


def apply_sustain_per_voice(notes: Notes, pedals: Sequence[Seconds], voice: npt.NDArray[np.int64]) -> Notes:
    """As `extend`, where several play: note i is held by pedals[voice[i]], each (P, 2).

    They play on one piano: a held note is cut where its key is struck again, whoever strikes it.
    """
    end = notes.onset + notes.duration
    held = end.copy()
    for number, pedal in enumerate(pedals):
        if not len(pedal):
            continue
        own = np.flatnonzero(voice == number)
        down, up = pedal.T
        at = np.searchsorted(down, end[own], side="left") - 1
        under = (at >= 0) & (end[own] < up[at])
        held[own[under]] = up[at[under]]
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
