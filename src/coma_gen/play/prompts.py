"""Three example prompts of about ten seconds.

The music was written for this project and is free to use. Timing and loudness follow phrases, since the
models were trained on performances, not on scores. The notes are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from coma_gen.midi.notes import Notes


class Stroke(NamedTuple):
    """One note of a score: onset and length in beats, pitch, and emphasis from -1 to 1."""

    beat: float
    length: float
    pitch: int
    emphasis: float = 0.0


def play(strokes: list[Stroke], *, seconds_per_beat: float, loudness: float, phrase: float) -> Notes:
    """Renders a score as a performance.

    Args:
        strokes: Notes of the score.
        seconds_per_beat: Average tempo of a phrase, which is faster in the middle and slower at its ends.
        loudness: Velocity of the accompaniment at the ends of a phrase.
        phrase: Length of a phrase in beats.
    """

    def second(beat: float) -> float:
        number, rest = divmod(beat, phrase)
        x = rest / phrase
        warped = x + 0.1 * x * (1 - x) * (1 - 2 * x) * 2  # slope 1.2 at both ends, 0.9 in the middle
        return seconds_per_beat * phrase * (number + warped)

    def velocity(stroke: Stroke) -> int:
        x = stroke.beat % phrase / phrase
        return round(loudness + 48 * x * (1 - x) + 14 * stroke.emphasis)

    ordered = sorted(strokes)
    # The notes of a chord are slightly spread: the melody comes first, and higher notes later than lower
    # ones.
    delays = [0.0 if stroke.emphasis > 0 else 0.008 + 0.0002 * stroke.pitch for stroke in ordered]
    onsets = [second(stroke.beat) + delay for stroke, delay in zip(ordered, delays, strict=True)]
    ends = [second(stroke.beat + stroke.length) for stroke in ordered]
    return Notes.of(
        onsets,
        [max(0.05, end - onset) for onset, end in zip(onsets, ends, strict=True)],
        [stroke.pitch for stroke in ordered],
        [velocity(stroke) for stroke in ordered],
    )


def waltz() -> Notes:
    """A slow waltz in A minor, eight bars: bass, two chords per bar, and a melody."""
    harmony = [
        (45, (57, 60, 64)),
        (45, (57, 60, 64)),
        (50, (57, 62, 65)),
        (50, (57, 62, 65)),
        (40, (56, 62, 64)),
        (40, (56, 59, 64)),
        (45, (57, 60, 64)),
        (40, (56, 62, 64)),
    ]
    melody = [
        *[(0, 2, 76), (2, 1, 72), (3, 1.5, 76), (4.5, 0.5, 77), (5, 1, 76)],
        *[(6, 2, 74), (8, 1, 77), (9, 1, 81), (10, 1, 79), (11, 1, 77)],
        *[(12, 2, 76), (14, 1, 74), (15, 1, 71), (16, 1, 74), (17, 1, 76)],
        *[(18, 2, 72), (20, 1, 69), (21, 3, 71)],
    ]
    strokes = [Stroke(beat, 0.95 * length, pitch, 1.0) for beat, length, pitch in melody]
    for bar, (bass, chord) in enumerate(harmony):
        strokes.append(Stroke(3 * bar, 2.8, bass))
        strokes += [
            Stroke(3 * bar + beat, 0.7, pitch, -0.6)
            for beat in (1, 2)
            for pitch in chord
            if bar < len(harmony) - 1 or beat == 1
        ]
    return play(strokes, seconds_per_beat=0.5, loudness=46, phrase=12)


def prelude() -> Notes:
    """Broken chords in E-flat major, five bars of sixteen notes; the top note of each is the melody."""
    chords = [
        (39, 51, 58, 63, 67, 70),
        (39, 51, 60, 63, 68, 72),
        (38, 50, 58, 65, 68, 74),
        (39, 51, 58, 63, 67, 75),
        (36, 48, 55, 63, 67, 72),
    ]
    order = (0, 1, 2, 3, 4, 5, 4, 3, 2, 3, 4, 5, 4, 3, 4, 2)

    def strokes() -> Iterator[Stroke]:
        for bar, chord in enumerate(chords):
            for step, voice in enumerate(order):
                length = 3.8 if voice == 0 else 1.2 if voice == 1 else 0.4
                emphasis = 0.9 if voice == 5 else 0.3 if voice == 0 else -0.4
                yield Stroke(4 * bar + step / 4, length, chord[voice], emphasis)

    return play(list(strokes()), seconds_per_beat=0.52, loudness=50, phrase=20)


def chorale() -> Notes:
    """Two lines of a chorale in G major, four voices."""
    chords = [
        (43, 62, 67, 71),
        (47, 62, 67, 74),
        (48, 60, 67, 76),
        (50, 62, 66, 74),
        (52, 59, 67, 71),
        (48, 60, 64, 72),
        (50, 57, 66, 69),
        (43, 59, 62, 67),
        (52, 59, 67, 71),
        (51, 59, 66, 71),
        (50, 62, 66, 69),
        (49, 64, 67, 69),
        (50, 62, 66, 69),
        (42, 57, 62, 69),
        (43, 59, 62, 67),
        (38, 57, 62, 66),
    ]
    strokes = [
        Stroke(beat, 1.6 if beat % 8 == 7 else 0.95, pitch, 0.8 if pitch == max(chord) else 0.0)
        for beat, chord in enumerate(chords)
        for pitch in chord
    ]
    return play(strokes, seconds_per_beat=0.72, loudness=42, phrase=8)


PROMPTS: dict[str, Callable[[], Notes]] = {"waltz": waltz, "prelude": prelude, "chorale": chorale}
"""File name without extension -> function that creates the notes."""
