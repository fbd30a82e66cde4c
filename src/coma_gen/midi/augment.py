"""Augmentation: changes of tempo and transposition."""

from __future__ import annotations

import numpy as np

from coma_gen.midi.notes import Notes


def scale_tempo(notes: Notes, factor: float) -> Notes:
    """Plays the music, pedal included, `factor` times as fast: 2.0 halves its length.

    Raises:
        ValueError: The factor is not above 0.
    """
    if not factor > 0 or not np.isfinite(factor):
        raise ValueError(f"a tempo factor must be above 0, got {factor}")
    return Notes.of(
        notes.onset / factor, notes.duration / factor, notes.pitch, notes.velocity, notes.pedal / factor
    )


def transpose(notes: Notes, semitones: int) -> Notes:
    """Transposes the music up by `semitones` (down when negative); no note is dropped or folded.

    Raises:
        ValueError: A note would leave the MIDI range of 0 to 127.
    """
    pitch = notes.pitch.astype(np.int64) + semitones
    if len(pitch) and not (pitch.min() >= 0 and pitch.max() <= 127):
        raise ValueError(f"transposing by {semitones} leaves the range of 0 to 127")
    return Notes.of(notes.onset, notes.duration, pitch, notes.velocity, notes.pedal)
