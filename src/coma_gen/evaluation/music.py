"""Plain measures of music itself, for samples beside real performances of the same length.

Each is a mean over pieces. They say what kind of music it is, not how good.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coma_gen.corpus.performance import read_table
from coma_gen.generation.continuation import Piece
from coma_gen.generation.samples import excerpt
from coma_gen.music.midi import read_notes
from coma_gen.music.notes import Notes


def pitch_class_entropy(notes: Notes) -> float:
    """Entropy in bits of the twelve pitch classes: 0 for one, log2(12) = 3.58 for all alike."""
    share = np.bincount(notes.pitch % 12, minlength=12) / max(1, len(notes))
    used = share[share > 0]
    return float(-(used * np.log2(used)).sum())


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


def music_measures(pieces: Sequence[Notes]) -> dict[str, float]:
    """Means over the pieces that have notes; none when there are none.

    Returns:
        notes_per_second, polyphony, pitch_class_entropy (bits), pitch_range (semitones), mean_pitch and
        mean_velocity (MIDI), mean_duration (s).
    """
    rows = [
        {
            "notes_per_second": len(notes) / max(notes.end, 1e-9),
            "polyphony": polyphony(notes),
            "pitch_class_entropy": pitch_class_entropy(notes),
            "pitch_range": float(notes.pitch.max()) - float(notes.pitch.min()),
            "mean_pitch": float(notes.pitch.mean()),
            "mean_velocity": float(notes.velocity.mean()),
            "mean_duration": float(notes.duration.mean()),
        }
        for notes in pieces
        if len(notes)
    ]
    return {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}


def sample_metrics(pieces: Sequence[Piece], split: Path, corpus: Path, *, seconds: float) -> dict[str, Any]:
    """What the samples are, beside the openings of the test performances.

    Args:
        pieces: what was generated; of continuations only what is new is measured.
        split: the split stage's folder.
        corpus: the MIDI files.
        seconds: of the openings.

    Returns:
        Counts of samples, tokens, notes, pieces cut at the bound on tokens, without notes, and breaking the
        grammar; the mean probability that the model gave to tokens that may not follow; the measures of the
        samples and of test.
    """
    new = [piece.new for piece in pieces]
    table = read_table(split / "test.csv")
    real = [excerpt(read_notes(corpus / row.midi_filename), 0.0, seconds) for row in table]
    return {
        "samples": len(pieces),
        "tokens": sum(piece.tokens for piece in pieces),
        "notes": sum(len(notes) for notes in new),
        "cut_at_max_tokens": sum(not piece.reached for piece in pieces),
        "without_notes": sum(not len(notes) for notes in new),
        "invalid": sum(not piece.valid for piece in pieces),
        "illegal_probability": float(np.mean([piece.illegal for piece in pieces])),
        "music": music_measures(new),
        "music_of_test": music_measures(real),
    }
