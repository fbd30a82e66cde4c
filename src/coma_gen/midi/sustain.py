"""Applies the sustain pedal to note durations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.midi.notes import Notes, Seconds


def apply_sustain(notes: Notes) -> Notes:
    """Extends every note that ends under the pedal to the release of the pedal; the result has no pedal.

    An extended note ends where the same key is struck again. No note becomes shorter. A pedal that is pressed
    at the exact time a note ends does not extend it.

        key     ████            ████        played
        pedal     ▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔▔
        result  ███████████████ ███████████
    """
    return apply_sustain_per_voice(notes, [notes.pedal], np.zeros(len(notes), np.int64))


def apply_sustain_per_voice(notes: Notes, pedals: Sequence[Seconds], voice: npt.NDArray[np.int64]) -> Notes:
    """Applies a pedal per voice, see `apply_sustain`: note i is sustained by pedals[voice[i]], each (P, 2).

    All voices share one piano: an extended note ends where its key is struck again by any voice.
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
    released = np.minimum(held, np.maximum(end, _find_next_onsets(notes)))
    lengthened = released > end
    duration = np.where(lengthened, released - notes.onset, notes.duration)
    return Notes.of(notes.onset, duration, notes.pitch, notes.velocity)


def _find_next_onsets(notes: Notes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Returns the next later onset (N,) of the same pitch in seconds; infinity for the last."""
    following = np.full(len(notes), np.inf)
    for pitch in np.unique(notes.pitch):
        where = np.flatnonzero(notes.pitch == pitch)
        onsets = notes.onset[where]
        after = np.append(onsets, np.inf)
        following[where] = after[np.searchsorted(onsets, onsets, side="right")]
    return following
