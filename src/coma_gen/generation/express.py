"""A MIDI file as a performer might play it: the model draws velocities, lengths and small delays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.touch import TouchRequest, draw_touches, is_of
from coma_gen.midi.io import notes_of, read_song
from coma_gen.midi.notes import Midi, Notes, Seconds
from coma_gen.midi.song import Song, without_notes
from coma_gen.midi.touch import with_touch
from coma_gen.tokenizer.codec import encode_grid, times_of
from coma_gen.tokenizer.grid import Grid, Positions
from coma_gen.tokenizer.vocabulary import Ids, Vocabulary

Watch = Callable[[Callable[[], list[Notes]]], None]
"""Called after each token with what gives the notes so far; may end the work by raising."""


@dataclass(frozen=True)
class Expressed:
    """A file as the model plays it.

    Attributes:
        midi: the file, with its own pitches, drums, pedals and tempi.
        notes: its notes.
        unheard: how many notes keep their own touch, as the model does not know their pitch.
        endless: how many notes were left out, as they have no end.
    """

    midi: bytes
    notes: Notes
    unheard: int
    endless: int


def express_midi(
    composer: MusicGenerator,
    content: bytes,
    *,
    name: str,
    request: TouchRequest,
    most_tokens: int | None = None,
    watch: Watch | None = None,
) -> list[Expressed]:
    """Plays the notes of a MIDI file.

    Args:
        composer: model and tokenizer.
        content: the file.
        name: how faults call it.
        request: how they are to be played.
        most_tokens: bound on the tokens of the file.
        watch: see `Watch`; its notes stand at their seconds of the file.

    Raises:
        UserError: the file cannot be read, is too long, has no note that the model knows, or the tokenizer
            has byte pairs.
    """
    song = read_song(content, name=name)
    if not len(song.played[0]):
        raise UserError(Fault(name, "must have notes that are not drums", without_notes(song)))
    stream, (on, off) = song.stream, song.played
    notes = Notes.of(
        song.clock.seconds(stream.tick[on]),
        song.clock.span(stream.tick[on], stream.tick[off]),
        stream.first[on],
        stream.second[on],
        notes_of(song).pedal,
    )
    touches = express(composer, notes, name=name, request=request, most_tokens=most_tokens, watch=watch)
    return [_played(song, touch, name, keep_lengths=request.keep_lengths) for touch in touches]


def _played(song: Song, touch: Touch, name: str, *, keep_lengths: bool) -> Expressed:
    stream, (on, off) = song.stream, song.played
    onset, pitch = song.clock.seconds(stream.tick[on]), stream.first[on]
    found = np.searchsorted(touch.keys, touch.key_of(onset, pitch))
    found = np.minimum(found, len(touch.keys) - 1)
    is_known = touch.keys[found] == touch.key_of(onset, pitch)
    duration = song.clock.span(stream.tick[on], stream.tick[off])
    midi = with_touch(
        song,
        np.where(is_known, touch.velocity[found], stream.second[on]).astype(np.uint8),
        np.where(is_known & (not keep_lengths), touch.duration[found], duration),
        np.where(is_known, touch.delay[found], 0.0),
    )
    unheard = int(np.count_nonzero(~is_known))
    return Expressed(midi, notes_of(read_song(midi, name=name)), unheard, song.endless_notes)


@dataclass(frozen=True)
class Touch:
    """How notes on the grid are played, in the order of their keys.

    Attributes:
        keys: (N,) what names each: position times 128 and pitch.
        velocity: (N,) 1 to 127.
        duration: (N,) seconds.
        delay: (N,) seconds by which each onset moves.
        origin: seconds at which the grid begins.
        rate: positions per second.
    """

    keys: Positions
    velocity: Midi
    duration: Seconds
    delay: Seconds
    origin: float
    rate: int

    def key_of(self, onset: Seconds, pitch: Positions) -> Positions:
        """The names of notes."""
        position = np.rint((onset - self.origin) * self.rate).astype(np.int64)
        return np.asarray(position * 128 + pitch, np.int64)


def express(
    composer: MusicGenerator,
    notes: Notes,
    *,
    name: str,
    request: TouchRequest,
    most_tokens: int | None = None,
    watch: Watch | None = None,
) -> list[Touch]:
    """Draws touches for all notes that the model knows; see `express_midi`.

    Args:
        composer: model and tokenizer.
        notes: their velocities and durations are not looked at.
        name: how faults call them.
        request: how they are to be played.
        most_tokens: bound on their tokens.
        watch: see `Watch`.

    Raises:
        UserError: as `express_midi`.
    """
    vocabulary = composer.tokenizer.vocabulary
    if len(vocabulary) != len(vocabulary.base):
        rule = "must be without byte pairs to express, as they tie velocities to pitches"
        raise UserError(Fault("the model's tokenizer", rule, f"{len(vocabulary):,} tokens"))
    origin = float(notes.onset[0])
    grid = composer.tokenizer.grid(_stiff(composer, notes, origin, keep_lengths=request.keep_lengths))
    if not len(grid):
        low, high = vocabulary.pitch_range
        rule = f"must have a note that the model knows, of pitch {low} to {high}"
        raise UserError(Fault(name, rule, f"{len(notes)} others"))
    ids = encode_grid(grid, vocabulary)
    if most_tokens is not None and len(ids) > most_tokens:
        rule = f"must be at most {most_tokens:,} tokens to be expressed here"
        raise UserError(Fault(name, rule, f"{len(ids):,}", "run `coma-gen express` on it"))

    def tell(rows: Callable[[], list[Ids]]) -> None:
        if watch is not None:
            watch(lambda: [composer.tokenizer.decode(row).shifted(origin) for row in rows()])

    steps = int(request.timing * vocabulary.positions_per_second / 1000)
    drawn = draw_touches(composer, ids, request, steps=steps, watch=tell)
    return [_touch(row, ids, grid, vocabulary, origin) for row in drawn]


def _stiff(composer: MusicGenerator, notes: Notes, origin: float, *, keep_lengths: bool) -> Notes:
    """The notes without a touch of their own, so that none is seen but the lengths that are kept."""
    pedal = notes.pedal if composer.writes_pedal else np.zeros((0, 2))
    shortest = composer.tokenizer.vocabulary.duration_seconds[0]
    return Notes.of(
        notes.onset - origin,
        notes.duration if keep_lengths else np.full(len(notes), shortest),
        notes.pitch,
        np.full(len(notes), 64),
        np.maximum(pedal - origin, 0.0),
    )


def _touch(row: Ids, ids: Ids, grid: Grid, vocabulary: Vocabulary, origin: float) -> Touch:
    velocity, duration = (row[is_of(row, vocabulary, kind)] for kind in ("Velocity", "Duration"))
    is_note = is_of(ids, vocabulary, "Pitch")
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
