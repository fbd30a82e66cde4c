"""Tempo and transposition."""

from __future__ import annotations

import pytest

from coma_gen.midi.augment import scale_tempo, transpose
from coma_gen.midi.notes import Notes

NOTES = Notes.of([1, 2], [0.5, 1], [60, 64], [70, 80], [(0.5, 3)])


def test_twice_the_tempo_takes_half_as_long() -> None:
    fast = scale_tempo(NOTES, 2.0)
    assert (fast.onset.tolist(), fast.duration.tolist()) == ([0.5, 1], [0.25, 0.5])
    assert fast.pedal.tolist() == [[0.25, 1.5]]
    assert scale_tempo(fast, 0.5) == NOTES


def test_transposed_moves_pitches_only() -> None:
    assert transpose(NOTES, -12).pitch.tolist() == [48, 52]
    assert transpose(transpose(NOTES, 5), -5) == NOTES
    assert transpose(Notes.empty(), 100) == Notes.empty()


@pytest.mark.parametrize("semitones", [64, -61])
def test_leaving_the_range_is_refused(semitones: int) -> None:
    with pytest.raises(ValueError, match="0 to 127"):
        transpose(NOTES, semitones)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tempo_must_be_above_0(factor: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        scale_tempo(NOTES, factor)
