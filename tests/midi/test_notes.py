"""Notes: sorted, validated, cut and joined."""

from __future__ import annotations

import numpy as np
import pytest

from coma_gen.midi.notes import Notes


def test_notes_are_sorted_by_onset_pitch_duration_and_velocity() -> None:
    notes = Notes.of([1, 0, 0, 0], [1, 2, 1, 1], [60, 64, 60, 60], [9, 8, 7, 6])
    assert notes.onset.tolist() == [0, 0, 0, 1]
    assert notes.pitch.tolist() == [60, 60, 64, 60]
    assert notes.velocity.tolist() == [6, 7, 8, 9]
    assert (notes.pitch.dtype, notes.onset.dtype) == (np.uint8, np.float64)
    assert notes.end == 2.0


@pytest.mark.parametrize(
    "columns",
    [
        ([0.0], [1.0, 2.0], [60], [60]),
        ([-0.1], [1.0], [60], [60]),
        ([np.nan], [1.0], [60], [60]),
        ([0.0], [-1.0], [60], [60]),
        ([0.0], [1.0], [128], [60]),
        ([0.0], [1.0], [60], [0]),
        ([0.0], [1.0], [60], [60], [(2.0, 1.0)]),
    ],
)
def test_what_no_piano_can_play_is_refused(columns: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="must"):
        Notes.of(*columns)


def test_pedals_that_overlap_become_one_and_those_that_touch_stay_two() -> None:
    notes = Notes.of([], [], [], [], [(5, 6), (0, 2), (1, 3), (3, 4), (0.5, 1)])
    assert notes.pedal.tolist() == [[0, 3], [3, 4], [5, 6]]


def test_silence_ends_at_0() -> None:
    assert len(Notes.empty()) == 0
    assert Notes.empty().end == 0.0
    assert Notes.empty().between(0, 1) == Notes.empty()


def test_between_keeps_times_and_cuts_the_pedal() -> None:
    notes = Notes.of([0, 1, 2], [5, 1, 1], [60, 61, 62], [64, 64, 64], [(0, 1.5), (1.75, 9)])
    middle = notes.between(1, 2)
    assert (middle.onset.tolist(), middle.pitch.tolist()) == ([1], [61])
    assert middle.pedal.tolist() == [[1, 1.5], [1.75, 2]]


def test_shifted_moves_everything_and_nothing_before_the_start() -> None:
    notes = Notes.of([1], [1], [60], [64], [(0.5, 2)])
    assert notes.shifted(1).onset.tolist() == [2]
    assert notes.shifted(-0.5).pedal.tolist() == [[0, 1.5]]
    with pytest.raises(ValueError, match="before 0"):
        notes.shifted(-0.75)


def test_joined_is_both_at_once() -> None:
    one = Notes.of([0], [1], [60], [64], [(0, 2)])
    both = one.joined(Notes.of([0.5], [1], [59], [64], [(1, 3)]))
    assert both.pitch.tolist() == [60, 59]
    assert both.pedal.tolist() == [[0, 3]]
    assert both != one
    assert one.joined(Notes.empty()) == one
