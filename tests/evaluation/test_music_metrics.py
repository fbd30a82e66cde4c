"""Music metrics against hand-counted pieces, and against muspy for the metrics that it has."""

from __future__ import annotations

import math
from typing import Any

import muspy
import numpy as np
import pytest

from coma_gen.evaluation.music_metrics import (
    MEASURES,
    groove_similarity,
    inter_onset,
    measure_all,
    notes_outside_key,
    pitch_class_entropy,
    pitch_range,
    return_3_to_8,
    return_8_to_15,
    return_from_15,
    self_repetition,
    stay_on_three_keys,
)
from coma_gen.midi.measures import duration, notes_per_second, polyphony, velocity
from coma_gen.midi.notes import Notes

TRIAD = Notes.of([0, 0, 0, 2], [1, 1, 1, 1], [60, 64, 67, 72], [60, 70, 80, 90])
ONE = Notes.of([0], [1], [60], [64])


def row_of(onsets: list[float], pitches: list[int] | None = None) -> Notes:
    return Notes.of(onsets, [0.1] * len(onsets), pitches or [60] * len(onsets), [64] * len(onsets))


def test_entropy_counts_classes_not_octaves() -> None:
    assert pitch_class_entropy(Notes.of([0, 1], [1, 1], [60, 72], [64, 64])) == 0
    assert pitch_class_entropy(TRIAD) == pytest.approx(1.5)
    chromatic = Notes.of(range(12), [1] * 12, range(60, 72), [64] * 12)
    assert pitch_class_entropy(chromatic) == pytest.approx(math.log2(12))


def test_polyphony_leaves_silence_out() -> None:
    assert polyphony(TRIAD) == pytest.approx((3 * 1 + 1 * 1) / 2)
    assert polyphony(Notes.of([0, 0.5], [1, 1], [60, 62], [64, 64])) == pytest.approx(2 / 1.5)
    assert polyphony(Notes.empty()) == 0


def test_means_and_extremes_by_hand() -> None:
    assert pitch_range(TRIAD) == 12
    assert velocity(TRIAD) == 75
    assert duration(TRIAD) == 1
    assert notes_per_second(TRIAD) == pytest.approx(4 / 3)
    assert notes_per_second(row_of([0.0])) == 1, "a single note does not count as an infinite density"


def test_the_longest_stay_on_three_keys_by_hand() -> None:
    assert stay_on_three_keys(row_of([0, 1, 2, 4, 7], [60, 62, 64, 65, 65])) == 7 - 1  # 62 64 65 65
    assert stay_on_three_keys(row_of([0, 1, 5, 6], [60, 62, 64, 60])) == 6
    assert stay_on_three_keys(row_of([0, 1, 5, 6], [60, 62, 64, 65])) == 5
    assert stay_on_three_keys(TRIAD) == 2  # the third of the chord is not struck by then: 64 67 72
    assert stay_on_three_keys(ONE) == 0


def test_times_between_chords_by_hand() -> None:
    assert inter_onset(row_of([0.0, 0.02, 0.5, 0.51, 0.52, 1.5])) == pytest.approx((0.5 + 1.0) / 2)
    assert inter_onset(TRIAD) == 2
    assert inter_onset(ONE) == 0


def test_groove_by_hand() -> None:
    same = row_of([0.0, 0.5, 2.0, 2.5, 4.0])  # 40 steps of 50 ms a span; the third lacks one onset
    assert groove_similarity(same) == pytest.approx((1 + 39 / 40) / 2)
    other = row_of([0.0, 2.1, 2.9])
    assert groove_similarity(other) == pytest.approx(1 - 3 / 40)
    assert groove_similarity(ONE) == 0


def test_repetition_by_hand() -> None:
    motif = [60, 62, 64, 62, 67]
    transposed = [pitch + 5 for pitch in motif]
    pitches = motif + transposed
    times = [0.0, 0.2, 0.4, 0.6, 0.8, 2.0, 2.2, 2.4, 2.6, 2.8]
    # 10 notes hold 6 figures of 5 notes; the last is the first, a fourth higher
    assert self_repetition(row_of(times, pitches)) == pytest.approx(1 / 6)
    scale = row_of([0.2 * step for step in range(10)], list(range(60, 70)))
    assert self_repetition(scale) == pytest.approx(5 / 6)
    assert self_repetition(ONE) == 0
    assert self_repetition(row_of([0.0, 0.2, 0.4, 0.6])) == 0


def test_notes_outside_the_key_by_hand() -> None:
    g_major = [67, 69, 71, 72, 74, 76, 78]
    assert notes_outside_key(row_of(list(range(7)), g_major)) == 0
    assert notes_outside_key(row_of(list(range(10)), [*g_major, 68, 70, 67])) == pytest.approx(0.2)


def spans_of(pitches: list[int]) -> Notes:
    """A note of a second for each pitch, one after the other."""
    return Notes.of(range(len(pitches)), [1.0] * len(pitches), pitches, [64] * len(pitches))


def test_returns_of_a_theme_by_hand() -> None:
    theme = [60, 62, 64, 65]  # 8 frames of harmony, which come back after 4 s, 8 s and so on
    notes = spans_of(theme * 6)  # 48 frames; a frame is like 11 of the other 47
    expected = 1 - 11 / 47
    for measure in (return_3_to_8, return_8_to_15, return_from_15):
        assert measure(notes) == pytest.approx(expected)
    once = spans_of([*range(60, 72), *range(60, 64)])  # 32 frames: 8 of them are as those 12 s before
    pairs = 32 * 31 / 2
    alike = (16 + 4 * 4) / pairs  # both halves of each second; those of four seconds with those of the other
    assert return_8_to_15(once) == pytest.approx(1 - alike)
    assert return_3_to_8(once) == pytest.approx(-alike)
    assert return_from_15(once) == 0, "too short"
    assert return_3_to_8(ONE) == 0


def test_measures_are_values_by_piece_and_begin_with_the_first_note() -> None:
    found = measure_all([TRIAD, TRIAD.shifted(7.0)])
    assert set(found) == set(MEASURES)
    for values in found.values():
        assert values.shape == (2,) and values[0] == pytest.approx(values[1])


def random_music(seed: int) -> Notes:
    """Notes on a grid of 50 ms, which muspy's time steps then are; no key sounds twice at once."""
    draw = np.random.default_rng(seed)
    steps = np.arange(200)
    pitch = draw.permutation(np.arange(30, 90))[steps % 60]
    length = draw.integers(1, 50, 200)
    return Notes.of(steps // 2 * 0.05 * 3, length * 0.05, pitch, draw.integers(1, 128, 200))


@pytest.mark.parametrize("seed", range(3))
def test_muspy_says_the_same(seed: int) -> None:
    notes = random_music(seed)

    def step(seconds: float) -> int:
        return round(seconds / 0.05)

    rows: list[Any] = [
        muspy.Note(time=step(at), pitch=int(pitch), duration=step(length), velocity=int(force))
        for at, length, pitch, force in zip(
            notes.onset, notes.duration, notes.pitch, notes.velocity, strict=True
        )
    ]
    music = muspy.Music(resolution=10, tracks=[muspy.Track(notes=rows)])
    assert pitch_class_entropy(notes) == pytest.approx(muspy.pitch_class_entropy(music))
    assert pitch_range(notes) == muspy.pitch_range(music)
    assert polyphony(notes) == pytest.approx(muspy.polyphony(music))
    assert groove_similarity(notes) == pytest.approx(muspy.groove_consistency(music, 40))
    assert notes_outside_key(notes) == pytest.approx(1 - muspy.scale_consistency(music))
