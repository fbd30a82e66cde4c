"""Measures of music against pieces whose figures can be counted by hand."""

from __future__ import annotations

import math

import pytest

from coma_gen.evaluation.music import music_measures, pitch_class_entropy, polyphony
from coma_gen.music.notes import Notes

TRIAD = Notes.of([0, 0, 0, 2], [1, 1, 1, 1], [60, 64, 67, 72], [60, 70, 80, 90])


def test_entropy_counts_classes_not_octaves() -> None:
    assert pitch_class_entropy(Notes.of([0, 1], [1, 1], [60, 72], [64, 64])) == 0
    assert pitch_class_entropy(TRIAD) == pytest.approx(1.5)
    chromatic = Notes.of(range(12), [1] * 12, range(60, 72), [64] * 12)
    assert pitch_class_entropy(chromatic) == pytest.approx(math.log2(12))


def test_polyphony_leaves_silence_out() -> None:
    assert polyphony(TRIAD) == pytest.approx((3 * 1 + 1 * 1) / 2)
    assert polyphony(Notes.of([0, 0.5], [1, 1], [60, 62], [64, 64])) == pytest.approx(2 / 1.5)
    assert polyphony(Notes.empty()) == 0


def test_measures_are_means_over_pieces_with_notes() -> None:
    measured = music_measures([TRIAD, Notes.empty()])
    assert measured["notes_per_second"] == pytest.approx(4 / 3)
    assert measured["pitch_range"] == 12
    assert measured["mean_velocity"] == 75
    assert music_measures([Notes.empty()]) == {}
