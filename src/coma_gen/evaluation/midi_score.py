"""Scores one MIDI file by the reference protocol of the evaluate stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.evaluation.likelihood import model_scorer
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.midi.io import notes_of, read_song
from coma_gen.midi.song import describe_missing_notes

CHUNK = 512
"""Tokens per forward pass; the cache is carried over, so this affects speed and memory only."""


@dataclass(frozen=True)
class Score:
    """Score of a piece, measured as in the evaluate stage; lower is better.

    Attributes:
        notes: Number of notes of the MIDI file, without drums and notes without an end.
        tokens: Number of tokens of the encoded piece, including its end.
        nats: Negative log-likelihood of all tokens.
        nats_per_token: Comparable between models with one tokenizer only.
        bits_per_note_10ms: Comparable between any models: bits per note at a resolution of 10 ms and 4
            velocities.
        left_out: Number of notes that were not encoded, by reason: drums, notes without an end, notes outside
            the tokenizer's pitches, notes repeated within one position of its grid. The last two are included
            in `notes`, but add no bits.
    """

    notes: int
    tokens: int
    nats: float
    nats_per_token: float
    bits_per_note_10ms: float
    left_out: dict[str, int]

    @property
    def perplexity(self) -> float:
        """The exponential of `nats_per_token`."""
        return math.exp(self.nats_per_token)


def score_midi(composer: MusicGenerator, content: bytes, *, name: str) -> Score:
    """Scores a MIDI file.

    Args:
        composer: Model and tokenizer.
        content: Content of the file.
        name: Name of the file in errors.

    Raises:
        UserError: The file cannot be read, or has no notes other than drums.
    """
    song = read_song(content, name=name)
    notes = notes_of(song)
    if not len(notes):
        raise UserError(Fault(name, "must have notes that are not drums", describe_missing_notes(song)))
    tokenizer = composer.tokenizer
    grid = tokenizer.grid(notes)
    body = tokenizer.encode_grid(grid)
    ids = np.concatenate([[tokenizer.bos_id], body, [tokenizer.eos_id]]).astype(np.uint16)
    nats = float(model_scorer(composer.loaded.model, batch=1, chunk=CHUNK, desc=None)([ids])[0].sum())
    bits = nats / math.log(2) + tokenizer.vocabulary.total_resolution_bits(ids)
    outside = tokenizer.vocabulary.count_outside(notes.pitch)
    return Score(
        notes=len(notes),
        tokens=len(ids) - 1,
        nats=nats,
        nats_per_token=nats / (len(ids) - 1),
        bits_per_note_10ms=bits / len(notes),
        left_out={
            "drum_notes": song.drum_notes,
            "notes_without_an_end": song.endless_notes,
            "notes_outside_of_pitches": outside,
            "notes_struck_twice_within_a_position": len(notes) - outside - len(grid),
        },
    )
