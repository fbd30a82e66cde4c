"""The same music, faster or slower, higher or lower."""

from __future__ import annotations

import numpy as np

from coma_gen.midi.notes import Notes


def at_tempo(notes: Notes, factor: float) -> Notes:
    """The music played `factor` times as fast: 2.0 takes half as long. The pedal goes with it.

    Raises:
        ValueError: when the factor is not above 0.
    """
    if not factor > 0 or not np.isfinite(factor):
        raise ValueError(f"a tempo factor must be above 0, got {factor}")
    return Notes.of(
        notes.onset / factor, notes.duration / factor, notes.pitch, notes.velocity, notes.pedal / factor
    )


def transposed(notes: Notes, semitones: int) -> Notes:
    """The music higher by `semitones` (lower when negative); no note is dropped or folded.

    Raises:
        ValueError: when a note would leave MIDI's range of 0 to 127.
    """
    pitch = notes.pitch.astype(np.int64) + semitones
    if len(pitch) and not (pitch.min() >= 0 and pitch.max() <= 127):
        raise ValueError(f"transposing by {semitones} leaves the range of 0 to 127")
    return Notes.of(notes.onset, notes.duration, pitch, notes.velocity, notes.pedal)
