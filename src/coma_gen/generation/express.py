"""How a performer might play given notes: the model draws velocities and lengths, onsets and pitches stay.

The tokens of bars, positions and pitches are forced, those of velocities and durations are drawn, each with
all notes before it and its own onset and pitch as context. So the grammar holds by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.engine import DecodeEngine
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams, probabilities, sample_from
from coma_gen.generation.sequence import SequenceState
from coma_gen.midi.io import notes_of, read_song
from coma_gen.midi.notes import Midi, Notes, Seconds
from coma_gen.midi.song import without_notes
from coma_gen.midi.touch import with_touch
from coma_gen.tokenizer.codec import encode_grid
from coma_gen.tokenizer.grid import Positions
from coma_gen.tokenizer.vocabulary import Ids, Vocabulary


@dataclass(frozen=True)
class Expressed:
    """A file as the model plays it.

    Attributes:
        midi: the file, with its own onsets, pitches, drums, pedals and tempi.
        notes: its notes.
        unheard: how many notes keep their own touch, as the model does not know their pitch.
        endless: how many notes were left out, as they have no end.
    """

    midi: bytes
    notes: Notes
    unheard: int
    endless: int


def express_midi(
    composer: MusicGenerator, content: bytes, *, name: str, choice: SamplingParams, seed: int
) -> Expressed:
    """Plays the notes of a MIDI file.

    Args:
        composer: model and tokenizer.
        content: the file.
        name: how faults call it.
        choice: how tokens are chosen.
        seed: the same seed, the same touch.

    Raises:
        UserError: the file cannot be read, has no note that the model knows, or the tokenizer has byte pairs.
    """
    song = read_song(content, name=name)
    if not len(song.played[0]):
        raise UserError(Fault(name, "must have notes that are not drums", without_notes(song)))
    stream, (on, off) = song.stream, song.played
    onset, pitch = song.clock.seconds(stream.tick[on]), stream.first[on]
    duration = song.clock.span(stream.tick[on], stream.tick[off])
    velocity = stream.second[on].astype(np.uint8)
    notes = Notes.of(onset, duration, pitch, velocity, notes_of(song).pedal)
    touched = express(composer, notes, name=name, choice=choice, seed=seed)
    found = np.searchsorted(touched.keys, touched.key_of(onset, pitch))
    found = np.minimum(found, len(touched.keys) - 1)
    is_known = touched.keys[found] == touched.key_of(onset, pitch)
    velocity = np.where(is_known, touched.velocity[found], velocity).astype(np.uint8)
    duration = np.where(is_known, touched.duration[found], duration)
    midi = with_touch(song, velocity, duration)
    unheard = int(np.count_nonzero(~is_known))
    return Expressed(midi, notes_of(read_song(midi, name=name)), unheard, song.endless_notes)


@dataclass(frozen=True)
class Touch:
    """How notes on the grid are played, in the order of their keys.

    Attributes:
        keys: (N,) what names each: position times 128 and pitch.
        velocity: (N,) 1 to 127.
        duration: (N,) seconds.
        origin: seconds at which the grid begins.
        rate: positions per second.
    """

    keys: Positions
    velocity: Midi
    duration: Seconds
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
    choice: SamplingParams,
    seed: int,
) -> Touch:
    """Draws a touch for every note that the model knows.

    Args:
        composer: model and tokenizer.
        notes: their velocities and durations are not looked at.
        name: how faults call them.
        choice: how tokens are chosen.
        seed: of all random numbers.

    Raises:
        UserError: there is no note that the model knows, or the tokenizer has byte pairs.
    """
    vocabulary = composer.tokenizer.vocabulary
    if len(vocabulary) != len(vocabulary.base):
        rule = "must be without byte pairs to express, as they tie velocities to pitches"
        raise UserError(Fault("the model's tokenizer", rule, f"{len(vocabulary):,} tokens"))
    origin = float(notes.onset[0])
    pedal = notes.pedal if composer.writes_pedal else np.zeros((0, 2))
    stiff = Notes.of(
        notes.onset - origin,
        np.full(len(notes), vocabulary.duration_seconds[0]),
        notes.pitch,
        np.full(len(notes), 64),
        np.maximum(pedal - origin, 0.0),
    )
    grid = composer.tokenizer.grid(stiff)
    if not len(grid):
        low, high = vocabulary.pitch_range
        rule = f"must have a note that the model knows, of pitch {low} to {high}"
        raise UserError(Fault(name, rule, f"{len(notes)} others"))
    ids = draw_touch(composer, encode_grid(grid, vocabulary), choice, seed)
    velocity, duration = (ids[_is_of(ids, vocabulary, kind)] for kind in ("Velocity", "Duration"))
    return Touch(
        keys=grid.onset * 128 + grid.pitch,
        velocity=np.asarray(vocabulary.velocities)[velocity - vocabulary.span("Velocity").start].astype(
            np.uint8
        ),
        duration=vocabulary.duration_seconds[duration - vocabulary.span("Duration").start],
        origin=origin,
        rate=vocabulary.positions_per_second,
    )


def _is_of(ids: Ids, vocabulary: Vocabulary, kind: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    span = vocabulary.span(kind)
    return np.asarray((ids >= span.start) & (ids < span.stop))


@torch.inference_mode()
def draw_touch(composer: MusicGenerator, ids: Ids, choice: SamplingParams, seed: int) -> Ids:
    """Base ids (T,) with their velocities and durations drawn anew, as `express` does it."""
    vocabulary = composer.tokenizer.vocabulary
    spans = [vocabulary.span(kind) for kind in ("Velocity", "Duration")]
    sequence = SequenceState([composer.tokenizer.bos_id], index=0, until=np.inf)
    reader = DecodeEngine(composer.loaded.model, [sequence])
    for token in tqdm(ids.tolist(), desc="touch", disable=None):
        chosen = token
        for span in spans:
            if token in span:
                among = probabilities(reader.logits[:, span.start : span.stop], None, choice)
                chosen = span.start + int(sample_from(among, [sequence.uniform(seed)])[0])
        sequence.tokens.append(chosen)
        reader.read([sequence], [0])
    return np.array(sequence.tokens, np.int64).astype(np.uint16)
