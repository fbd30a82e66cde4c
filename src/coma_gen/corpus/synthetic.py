"""The source "synthetic": generated piano music for machines without a network, and for tests.

Four fictional composers, each with a texture, write pieces in a key, in phrases over functional harmony,
around a motif. A simulated pianist plays them with rubato, dynamics, timing noise and, depending on the
texture, pedal. The music has structure at every distance, but it is not real music: label its results
"synthetic".

The bytes are the same on every machine: the only random numbers are those of `random.Random.random()`, no
libm function is used, and every time is a whole tick.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coma_gen.corpus.table import Performance
from coma_gen.midi.io import TICKS_PER_SECOND, midi_bytes
from coma_gen.midi.notes import Notes

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11)
KEYS = ("C", "D-flat", "D", "E-flat", "E", "F", "F-sharp", "G", "A-flat", "A", "B-flat", "B")
MOVES = {0: (3, 4, 5, 1), 1: (4, 4, 6), 2: (5, 3), 3: (4, 0, 1), 4: (0, 0, 5), 5: (3, 1, 4), 6: (0,)}
"""Scale degree of a chord -> degrees that may follow: tonic, subdominant, dominant and back."""

SPLIT_PATTERN = ("train", "validation", "test", *["train"] * 7)
FINAL_CHORD_SECONDS = 2.0
RESTRIKE_TICKS = TICKS_PER_SECOND // 20
"""The shortest time between two onsets of one key."""

Event = tuple[float, float, int, float]
"""Beat, length in beats, pitch, emphasis (about -1 to 1)."""

Stroke = tuple[int, int, int, int]
"""Onset and length in ticks, pitch, velocity."""


class Dice:
    """The only source of random numbers in this module."""

    def __init__(self, *labels: object) -> None:
        self._random = random.Random("/".join(map(str, labels)))  # noqa: S311 (music, not secrets)

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self._random.random()

    def pick(self, options: Sequence[int]) -> int:
        """Returns one of the options at random."""
        return options[int(self._random.random() * len(options))]

    def chance(self, probability: float) -> bool:
        """Returns True with the given probability."""
        return self._random.random() < probability


@dataclass(frozen=True, slots=True)
class SyntheticPiece:
    """Constant properties of a piece.

    Attributes:
        tonic: Pitch of the tonic below middle C.
        scale: Semitones of the seven degrees.
        beats: Beats per bar.
        motif: One bar of (beat, length in beats, scale steps above the anchor).
    """

    tonic: int
    scale: tuple[int, ...]
    beats: int
    motif: tuple[tuple[float, float, int], ...]

    def pitch(self, degree: int) -> int:
        """Returns the pitch of a scale degree: 0 is the tonic, 7 an octave above it."""
        return self.tonic + 12 * (degree // 7) + self.scale[degree % 7]


Texture = Callable[[SyntheticPiece, float, int, int], list[Event]]
"""(piece, first beat of the bar, degree of its chord, anchor of the melody) -> notes of the bar."""


def _write_melody(piece: SyntheticPiece, beat: float, anchor: int, octave: int = 7) -> list[Event]:
    return [
        (beat + start, length * 0.95, piece.pitch(anchor + steps + octave), 0.4 if start == 0 else 0.15)
        for start, length, steps in piece.motif
    ]


def _chorale(piece: SyntheticPiece, beat: float, degree: int, anchor: int) -> list[Event]:
    voices = (degree - 7, degree + 2, degree + 4, anchor + 7)
    return [
        (beat + half, 1.9, piece.pitch(voice), 0.3 if voice == voices[-1] else -0.2)
        for half in (0.0, 2.0)
        for voice in voices
    ]


def _nocturne(piece: SyntheticPiece, beat: float, degree: int, anchor: int) -> list[Event]:
    figure = (-7, -3, 0, 2, 4, 2, 0, -3)
    left = [(beat + 0.5 * at, 0.5, piece.pitch(degree + step), -0.5) for at, step in enumerate(figure)]
    return left + _write_melody(piece, beat, anchor)


def _waltz(piece: SyntheticPiece, beat: float, degree: int, anchor: int) -> list[Event]:
    chords = [(beat + at, 0.6, piece.pitch(degree + step), -0.5) for at in (1.0, 2.0) for step in (0, 2, 4)]
    return [(beat, 0.9, piece.pitch(degree - 7), 0.1), *chords, *_write_melody(piece, beat, anchor)]


def _invention(piece: SyntheticPiece, beat: float, degree: int, anchor: int) -> list[Event]:
    answer = _write_melody(piece, beat + piece.beats / 2, degree, octave=-7)
    return _write_melody(piece, beat, anchor) + [event for event in answer if event[0] < beat + piece.beats]


@dataclass(frozen=True, slots=True)
class Profile:
    """A fictional composer: texture, keys, beats per bar and per second, note values, pedal."""

    composer: str
    form: str
    texture: Texture
    keys: tuple[int, ...]
    beats: int
    slowest: float
    fastest: float
    values: tuple[float, ...]
    pedal: bool


PROFILES = (
    Profile("Synthetic Chorale", "Chorale", _chorale, (0, 7), 4, 1.0, 1.5, (1.0, 2.0), True),
    Profile("Synthetic Nocturne", "Nocturne", _nocturne, (3, 8), 4, 1.2, 1.7, (0.5, 1.0, 1.5), True),
    Profile("Synthetic Waltz", "Waltz", _waltz, (2, 9), 3, 2.2, 3.0, (0.5, 1.0, 1.0), True),
    Profile("Synthetic Invention", "Invention", _invention, (0, 2), 4, 1.5, 2.2, (0.25, 0.25, 0.5), False),
)


def write_synthetic(folder: Path, *, performances: int, seconds: float, seed: int) -> list[Performance]:
    """Writes `performances` MIDI files to `folder` and returns their rows.

    The composers alternate. Of ten performances eight are for training, one for validation and one for test;
    from three performances on, no split is empty.

    Args:
        folder: Folder to write; created if necessary.
        performances: Number of performances.
        seconds: Length of each.
        seed: Seed of the music; the first n performances do not depend on their number.
    """
    rows = []
    for index in range(performances):
        profile = PROFILES[index % len(PROFILES)]
        title, notes = compose(profile, Dice("synthetic", seed, index), number=index + 1, seconds=seconds)
        name = f"synthetic/{index + 1:05d}.midi"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(midi_bytes(notes))
        split = SPLIT_PATTERN[index % len(SPLIT_PATTERN)]
        rows.append(Performance(profile.composer, title, split, "", name, notes.end))
    return rows


def compose(profile: Profile, dice: Dice, *, number: int, seconds: float) -> tuple[str, Notes]:
    """Composes and performs one piece; returns its title and notes, exactly `seconds` long (to the tick)."""
    key, is_minor = dice.pick(profile.keys), dice.chance(0.4)
    piece = SyntheticPiece(48 + key - (12 if key > 6 else 0), MINOR if is_minor else MAJOR, profile.beats, ())
    piece = SyntheticPiece(piece.tonic, piece.scale, profile.beats, _write_motif(profile, dice))
    player = _Player(profile, dice, last=seconds - FINAL_CHORD_SECONDS)
    half = True
    while not player.is_done:
        player.play_phrase(_write_phrase(profile, piece, dice, half=half))
        half = not half
    chord = [piece.pitch(degree) for degree in (-7, 0, 2, 4, 7)]
    title = f"{profile.form} No. {number} in {KEYS[key]} {'minor' if is_minor else 'Major'}"
    return title, player.finish(chord, seconds)


def _write_motif(profile: Profile, dice: Dice) -> tuple[tuple[float, float, int], ...]:
    """Composes one bar of note values with a contour that mostly moves by step."""
    notes, at, steps = [], 0.0, 0
    while at < profile.beats:
        left = profile.beats - at
        length = min(profile.values[dice.pick(range(len(profile.values)))], left)
        notes.append((at, length, steps))
        at += length
        steps = max(-4, min(5, steps + dice.pick((-2, -1, -1, 1, 1, 2))))
    return tuple(notes)


def _write_phrase(profile: Profile, piece: SyntheticPiece, dice: Dice, *, half: bool) -> list[list[Event]]:
    """Composes bars over a progression that ends on the dominant (`half`) or the tonic, from beat 0."""
    bars = dice.pick((4, 4, 8))
    degrees = [0]
    while len(degrees) < bars - 2:
        degrees.append(dice.pick(MOVES[degrees[-1]]))
    degrees += [dice.pick((1, 3)), 4] if half else [4, 0]
    phrase, anchor = [], dice.pick((0, 2, 4))
    for bar, degree in enumerate(degrees):
        nearest = min((degree + step for step in (-7, -5, -3, 0, 2, 4)), key=lambda tone: abs(tone - anchor))
        anchor = nearest if dice.chance(0.8) else degree + 4
        phrase.append(profile.texture(piece, float(bar * piece.beats), degree, anchor))
    return phrase


class _Player:
    """Performs phrases: converts beats to seconds, emphasis to velocity, and bars to pedal."""

    def __init__(self, profile: Profile, dice: Dice, *, last: float) -> None:
        self._profile = profile
        self._dice = dice
        self._last = last
        self._beat_seconds = 1.0 / dice.between(profile.slowest, profile.fastest)
        self._loudness = dice.between(54.0, 72.0)
        self._rubato = dice.between(0.1, 0.35)
        self._now = 0.25
        self._notes: list[Stroke] = []
        self._pedal: list[tuple[int, int]] = []

    @property
    def is_done(self) -> bool:
        """Whether the final chord is due."""
        return self._now >= self._last

    def play_phrase(self, bars: list[list[Event]]) -> None:
        """Plays a phrase with a crescendo to its middle and a ritardando at its end."""
        beats = len(bars) * self._profile.beats
        starts = [self._now]
        for whole in range(beats + self._profile.beats):
            part = min(1.0, whole / beats)
            starts.append(starts[-1] + self._beat_seconds * (1.0 + self._rubato * part * part * part))
        for index, bar in enumerate(bars):
            first = index * self._profile.beats
            if self._profile.pedal:
                down, up = (
                    _to_ticks(starts[first] + 0.06),
                    _to_ticks(starts[first + self._profile.beats] - 0.02),
                )
                self._pedal.append((down, up))
            for beat, length, pitch, emphasis in bar:
                self._play(starts, beats, beat, length, pitch, emphasis)
        self._now = starts[beats]

    def _play(
        self, starts: list[float], beats: int, beat: float, length: float, pitch: int, emphasis: float
    ) -> None:
        phase = beat / beats
        swell = 4.0 * phase * (1.0 - phase)
        force = self._loudness + 16.0 * swell + 18.0 * emphasis + self._dice.between(-4.0, 4.0)
        onset = _to_ticks(_beat_to_seconds(starts, beat) + self._dice.between(-0.003, 0.003))
        end = _to_ticks(_beat_to_seconds(starts, min(beat + length, float(len(starts) - 1))))
        self._notes.append((onset, max(1, end - onset), pitch, max(1, min(127, int(force)))))

    def finish(self, chord: Sequence[int], seconds: float) -> Notes:
        """Ends with a chord of two seconds; later notes are dropped."""
        start, end = _to_ticks(self._last), _to_ticks(seconds)
        notes = [
            (on, min(length, start - on), pitch, force)
            for on, length, pitch, force in self._notes
            if on < start
        ]
        force = int(self._loudness)
        notes += [(start, end - start, pitch, force + self._dice.pick((0, 2, 4))) for pitch in chord]
        pedal = [(down, min(up, start)) for down, up in self._pedal if down < start]
        onset, length, pitch, velocity = zip(*_make_playable(notes), strict=True)
        return Notes.of(
            _to_seconds(onset), _to_seconds(length), pitch, velocity, [_to_seconds(pair) for pair in pedal]
        )


def _make_playable(notes: list[Stroke]) -> list[Stroke]:
    """Makes notes playable: a key is released before it is struck again, and not struck twice at once."""
    played: list[Stroke] = []
    last: dict[int, int] = {}
    for on, length, pitch, force in sorted(notes):
        at = last.get(pitch)
        if at is not None:
            before, lasted, _, was = played[at]
            if on - before < RESTRIKE_TICKS:
                played[at] = (before, max(lasted, on + length - before), pitch, max(force, was))
                continue
            played[at] = (before, min(lasted, on - before), pitch, was)
        last[pitch] = len(played)
        played.append((on, length, pitch, force))
    return played


def _beat_to_seconds(starts: list[float], beat: float) -> float:
    """Converts a beat to seconds by linear interpolation."""
    whole = min(int(beat), len(starts) - 2)
    return starts[whole] + (starts[whole + 1] - starts[whole]) * (beat - whole)


def _to_ticks(seconds: float) -> int:
    return max(0, int(seconds * TICKS_PER_SECOND + 0.5))


def _to_seconds(ticks: Sequence[int]) -> list[float]:
    return [tick / TICKS_PER_SECOND for tick in ticks]
