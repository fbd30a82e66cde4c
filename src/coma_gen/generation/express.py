"""Performs a MIDI file expressively: the model samples velocities, lengths and small delays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.touch import TouchRequest, draw_touches, is_type
from coma_gen.midi.io import notes_of, read_song
from coma_gen.midi.notes import Midi, Notes, Seconds
from coma_gen.midi.song import Song, describe_missing_notes
from coma_gen.midi.touch import apply_touch
from coma_gen.tokenizer.codec import encode_grid, times_of
from coma_gen.tokenizer.grid import Grid, Positions
from coma_gen.tokenizer.vocabulary import Ids, Vocabulary

Watch = Callable[[Callable[[], list[Notes]]], None]
"""Callback after each token; it receives a function that returns the notes so far, and may raise to stop."""


@dataclass(frozen=True)
class ExpressedFile:
    """A MIDI file as performed by the model.

    Attributes:
        midi: Content of the file, with the original pitches, drums, pedals and tempi.
        notes: Its notes.
        unchanged: Number of notes left unchanged because their pitch is outside the vocabulary.
        endless: Number of notes dropped because they have no end.
    """

    midi: bytes
    notes: Notes
    unchanged: int
    endless: int


def express_midi(
    composer: MusicGenerator,
    content: bytes,
    *,
    name: str,
    request: TouchRequest,
    max_tokens: int | None = None,
    watch: Watch | None = None,
) -> list[ExpressedFile]:
    """Performs the notes of a MIDI file.

    Args:
        composer: Model and tokenizer.
        content: Content of the file.
        name: Name of the file in errors.
        request: Settings of the performance.
        max_tokens: Maximum number of tokens of the file.
        watch: See `Watch`; its notes are at their times in the file.

    Raises:
        UserError: The file cannot be read, is too long, has no note in the vocabulary, or the tokenizer uses
            byte pairs.
    """
    song = read_song(content, name=name)
    if not len(song.sounding_notes[0]):
        raise UserError(Fault(name, "must have notes that are not drums", describe_missing_notes(song)))
    stream, (on, off) = song.stream, song.sounding_notes
    notes = Notes.of(
        song.clock.seconds(stream.tick[on]),
        song.clock.span(stream.tick[on], stream.tick[off]),
        stream.first[on],
        stream.second[on],
        notes_of(song).pedal,
    )
    touches = express(composer, notes, name=name, request=request, max_tokens=max_tokens, watch=watch)
    return [_apply_touch(song, touch, name, keep_lengths=request.keep_lengths) for touch in touches]


def _apply_touch(song: Song, touch: Touch, name: str, *, keep_lengths: bool) -> ExpressedFile:
    stream, (on, off) = song.stream, song.sounding_notes
    onset, pitch = song.clock.seconds(stream.tick[on]), stream.first[on]
    found = np.searchsorted(touch.keys, touch.key_of(onset, pitch))
    found = np.minimum(found, len(touch.keys) - 1)
    is_known = touch.keys[found] == touch.key_of(onset, pitch)
    duration = song.clock.span(stream.tick[on], stream.tick[off])
    midi = apply_touch(
        song,
        np.where(is_known, touch.velocity[found], stream.second[on]).astype(np.uint8),
        np.where(is_known & (not keep_lengths), touch.duration[found], duration),
        np.where(is_known, touch.delay[found], 0.0),
    )
    unchanged = int(np.count_nonzero(~is_known))
    return ExpressedFile(midi, notes_of(read_song(midi, name=name)), unchanged, song.endless_notes)


@dataclass(frozen=True)
class Touch:
    """Velocities, durations and delays of notes on the grid, sorted by key.

    Attributes:
        keys: (N,) keys of the notes: position * 128 + pitch.
        velocity: (N,) 1 to 127.
        duration: (N,) seconds.
        delay: (N,) seconds by which each onset moves.
        origin: Seconds at which the grid begins.
        rate: Positions per second.
    """

    keys: Positions
    velocity: Midi
    duration: Seconds
    delay: Seconds
    origin: float
    rate: int

    def key_of(self, onset: Seconds, pitch: Positions) -> Positions:
        """Computes the keys of notes."""
        position = np.rint((onset - self.origin) * self.rate).astype(np.int64)
        return np.asarray(position * 128 + pitch, np.int64)


def express(
    composer: MusicGenerator,
    notes: Notes,
    *,
    name: str,
    request: TouchRequest,
    max_tokens: int | None = None,
    watch: Watch | None = None,
) -> list[Touch]:
    """Samples performances of all notes in the vocabulary; see `express_midi`.

    Args:
        composer: Model and tokenizer.
        notes: Notes; their velocities are ignored, as are their durations without `keep_lengths`.
        name: Name of the notes in errors.
        request: Settings of the performance.
        max_tokens: Maximum number of tokens.
        watch: See `Watch`.

    Raises:
        UserError: See `express_midi`.
    """
    vocabulary = composer.tokenizer.vocabulary
    if len(vocabulary) != len(vocabulary.base):
        rule = "must not use byte pairs, which merge velocities with pitches"
        raise UserError(Fault("the model's tokenizer", rule, f"{len(vocabulary):,} tokens"))
    origin = float(notes.onset[0])
    grid = composer.tokenizer.grid(_flatten_touch(composer, notes, origin, keep_lengths=request.keep_lengths))
    if not len(grid):
        low, high = vocabulary.pitch_range
        rule = f"must have a note that the model knows, of pitch {low} to {high}"
        raise UserError(Fault(name, rule, f"{len(notes)} others"))
    ids = encode_grid(grid, vocabulary)
    if max_tokens is not None and len(ids) > max_tokens:
        rule = f"must be at most {max_tokens:,} tokens to be expressed here"
        raise UserError(Fault(name, rule, f"{len(ids):,}", "run `coma-gen express` on it"))

    def report(rows: Callable[[], list[Ids]]) -> None:
        if watch is not None:
            watch(lambda: [composer.tokenizer.decode(row).shifted(origin) for row in rows()])

    steps = int(request.timing * vocabulary.positions_per_second / 1000)
    drawn = draw_touches(composer, ids, request, steps=steps, watch=report)
    return [_decode_touch(row, ids, grid, vocabulary, origin) for row in drawn]


def _flatten_touch(composer: MusicGenerator, notes: Notes, origin: float, *, keep_lengths: bool) -> Notes:
    """Sets all velocities and, without `keep_lengths`, durations to constants, to hide the original ones."""
    pedal = notes.pedal if composer.writes_pedal else np.zeros((0, 2))
    shortest = composer.tokenizer.vocabulary.duration_seconds[0]
    return Notes.of(
        notes.onset - origin,
        notes.duration if keep_lengths else np.full(len(notes), shortest),
        notes.pitch,
        np.full(len(notes), 64),
        np.maximum(pedal - origin, 0.0),
    )


def _decode_touch(row: Ids, ids: Ids, grid: Grid, vocabulary: Vocabulary, origin: float) -> Touch:
    velocity, duration = (row[is_type(row, vocabulary, kind)] for kind in ("Velocity", "Duration"))
    is_note = is_type(ids, vocabulary, "Pitch")
    moved = times_of(row, vocabulary)[is_note] - times_of(ids, vocabulary)[is_note]
    velocities = np.asarray(vocabulary.velocities)[velocity - vocabulary.span("Velocity").start]
    return Touch(
        keys=grid.onset * 128 + grid.pitch,
        velocity=velocities.astype(np.uint8),
        duration=vocabulary.duration_seconds[duration - vocabulary.span("Duration").start],
        delay=moved / vocabulary.positions_per_second,
        origin=origin,
        rate=vocabulary.positions_per_second,
    )
