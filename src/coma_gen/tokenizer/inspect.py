"""Describes a MIDI file as the tokenizer represents it: notes, tokens and losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.midi.describe import file_facts, file_losses
from coma_gen.midi.io import notes_of, read_song
from coma_gen.midi.notes import Notes
from coma_gen.midi.song import describe_missing_notes
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.round_trip import fidelity
from coma_gen.tokenizer.vocabulary import Ids, Vocabulary

KEYS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def inspect_tokens(content: bytes, tokenizer: Tokenizer, *, name: str, shown: int) -> dict[str, Any]:
    """Returns the report of `coma-gen inspect` as plain data.

    Args:
        content: Content of the MIDI file.
        tokenizer: Tokenizer to use.
        name: Name of the file in errors.
        shown: Number of first tokens to list.

    Returns:
        summary (one sentence for a musician), file (see `file_facts`), music, tokens, lost (see `file_losses`
        and `fidelity`, and the numbers of notes outside the tokenizer's pitch range or struck twice within
        one position) and first_tokens.

    Raises:
        UserError: If the file cannot be read or has no notes except drums.
    """
    song = read_song(content, name=name)
    notes = notes_of(song)
    if not len(notes):
        raise UserError(Fault(name, "must have notes that are not drums", describe_missing_notes(song)))
    vocabulary = tokenizer.vocabulary
    ids = tokenizer.encode(notes)
    low, high = vocabulary.pitch_range
    outside = vocabulary.count_outside(notes.pitch)
    round_trip = fidelity(tokenizer, [notes])
    return {
        "summary": _summarize(round_trip, notes, vocabulary.pedal, drums=song.drum_notes),
        "file": file_facts(song),
        "music": _describe_music(notes) | {"drum_notes_left_out": song.drum_notes},
        "tokens": _describe_tokens(ids, notes, vocabulary),
        "lost": {
            **file_losses(song),
            "outside_of_pitches": outside,
            "lowest_and_highest_pitch": [low, high],
            "struck_twice_within_a_position": len(notes) - outside - len(tokenizer.grid(notes)),
            **{key: value for key, value in round_trip.items() if key not in ("performances", "notes")},
        },
        "first_tokens": [readable(int(index), vocabulary) for index in ids[:shown]],
    }


def _summarize(round_trip: dict[str, Any], notes: Notes, pedal: str, *, drums: int) -> str:
    """Summarizes the losses in one sentence."""
    lost = round_trip["notes_lost"]
    retained = (
        "all notes survive"
        if not lost
        else f"{100 * (len(notes) - lost) // len(notes)}% of the notes survive"
    )
    parts = [f"{retained}, moved by up to {round_trip['onset_error_ms']['max']:.0f} ms"]
    if len(notes.pedal):
        fates = {"extend": "becomes longer notes", "tokens": "has its own tokens", "ignore": "is ignored"}
        parts.append(f"the pedal {fates[pedal]}")
    if drums:
        parts.append("drums are ignored")
    return "; ".join(parts)


def _describe_music(notes: Notes) -> dict[str, Any]:
    pressed = float((notes.pedal[:, 1] - notes.pedal[:, 0]).sum())
    return {
        "notes": len(notes),
        "seconds": notes.end,
        "first_note_at_seconds": float(notes.onset[0]),
        "longest_gap_seconds": float(np.diff(notes.onset).max(initial=0.0)),
        "lowest_pitch": int(notes.pitch.min()),
        "highest_pitch": int(notes.pitch.max()),
        "softest_velocity": int(notes.velocity.min()),
        "loudest_velocity": int(notes.velocity.max()),
        "pedal_presses": len(notes.pedal),
        "pedal_share_of_time": pressed / max(notes.end, pressed, 1e-9),
    }


def _describe_tokens(ids: Ids, notes: Notes, vocabulary: Vocabulary) -> dict[str, Any]:
    base = vocabulary.expanded(ids)
    return {
        "tokens": len(ids),
        "tokens_per_note": len(ids) / len(notes),
        "bars_of_2_seconds": int(np.count_nonzero(base == vocabulary.span("Bar").start)),
        "vocabulary": len(vocabulary),
        "base_tokens": len(vocabulary.base),
        "onset_step_ms": 1000 / vocabulary.positions_per_second,
        "velocity_bins": len(vocabulary.velocities),
        "longest_duration_seconds": float(vocabulary.duration_seconds[-1]),
        "pedal": vocabulary.pedal,
    }


def readable(index: int, vocabulary: Vocabulary) -> str:
    """Describes an id in words; the base tokens of a BPE id are joined by +."""
    return " + ".join(_describe_base(base, vocabulary) for base in vocabulary.pieces[index]) or "nothing"


def _describe_base(base: int, vocabulary: Vocabulary) -> str:
    kind, value = vocabulary.base_types[base], vocabulary.base_values[base]
    if kind == "Position":
        return f"Position {value} ({int(value) / vocabulary.positions_per_second:.3f} s)"
    if kind == "Pitch":
        return f"Pitch {value} ({KEYS[int(value) % 12]}{int(value) // 12 - 1})"
    if kind == "Duration":
        seconds = vocabulary.duration_seconds[base - vocabulary.span("Duration").start]
        return f"Duration {seconds:.3f} s"
    return f"Velocity {value}" if kind == "Velocity" else kind
