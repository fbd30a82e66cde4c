"""The longest shared passage, against exhaustive search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.evaluation.memorization import Passage, encode_steps, longest_passages
from coma_gen.evaluation.sample_metrics import memorization_figures
from coma_gen.midi.notes import Notes

rows = st.lists(st.integers(0, 2), max_size=14).map(lambda row: np.array(row, np.int64))


def melody(pitches: list[int], times: list[float]) -> Notes:
    return Notes.of(times, [0.1] * len(times), pitches, [64] * len(times))


def everywhere(train: list[np.ndarray], piece: np.ndarray) -> int:
    """The longest run of `piece` that stands in a row of `train`, by trying them all."""
    runs = {tuple(row[a:b]) for row in train for a in range(len(row)) for b in range(a + 1, len(row) + 1)}
    lengths = [
        b - a for a in range(len(piece)) for b in range(a + 1, len(piece) + 1) if tuple(piece[a:b]) in runs
    ]
    return max(lengths, default=0)


@settings(max_examples=150)
@given(st.lists(rows, min_size=1, max_size=5), st.lists(rows, max_size=4))
def test_it_is_the_longest_there_is(train: list[np.ndarray], pieces: list[np.ndarray]) -> None:
    for piece, passage in zip(pieces, longest_passages(train, pieces), strict=True):
        length = everywhere(train, piece)
        assert passage.notes == (length + 1 if length else 0)
        if length:
            run = piece[passage.start : passage.start + length].tolist()
            row = train[passage.row].tolist()
            assert any(row[at : at + length] == run for at in range(len(row)))
        else:
            assert passage == Passage(0, 0, -1)


def test_symbols_by_hand() -> None:
    notes = melody([60, 64, 62, 62], [0.0, 0.0, 0.52, 9.0])
    steps = [(4, 0), (-2, 10), (0, 63)]
    assert encode_steps(notes).tolist() == [(interval + 128) * 64 + time for interval, time in steps]
    assert len(encode_steps(Notes.empty())) == len(encode_steps(melody([60], [0.0]))) == 0


@pytest.mark.parametrize("shift", [0.0, 1 / 48, 5 / 48, 0.0249])
def test_transposed_and_later_music_is_the_same_row(shift: float) -> None:
    times = [step / 48 for step in (0, 6, 6, 30, 31, 55, 90)]
    notes = melody([60, 64, 67, 70, 71, 50, 55], times)
    moved = Notes.of(notes.onset + shift, notes.duration * 2, notes.pitch + 7, notes.velocity // 2)
    np.testing.assert_array_equal(encode_steps(notes), encode_steps(moved))


def test_a_planted_passage_is_found_where_it_is() -> None:
    draw = np.random.default_rng(0)
    train = [
        encode_steps(
            melody(draw.integers(30, 90, 200).tolist(), np.cumsum(draw.uniform(0, 0.4, 200)).tolist())
        )
        for _ in range(6)
    ]
    piece = encode_steps(
        melody(draw.integers(30, 90, 60).tolist(), np.cumsum(draw.uniform(0, 0.4, 60)).tolist())
    )
    assert longest_passages(train, [piece])[0].notes < 8
    piece[20:45] = train[4][100:125]
    (passage,) = longest_passages(train, [piece])
    assert passage == Passage(notes=26, start=20, row=4)


def test_passages_do_not_run_over_the_end_of_a_performance() -> None:
    row = np.arange(5, dtype=np.int64)
    (passage,) = longest_passages([row[:3], row[3:]], [row])
    assert passage.notes == 4


def test_figures_by_hand() -> None:
    found = memorization_figures({"samples": [4, 6], "test": [3, 5, 9]})
    assert found["samples"] == {"pieces": 2, "mean_notes": 5.0, "longest_notes": 6}
    # the longest of two of the three: 5 once, 9 twice
    assert found["test"]["longest_notes_of_as_many"] == pytest.approx((5 + 9 + 9) / 3)
    assert found["test"]["longest_notes"] == 9
    assert memorization_figures({"samples": [4] * 7, "test": [3, 8]})["test"]["longest_notes_of_as_many"] == 8
    assert memorization_figures({"samples": [], "test": [3]}) == {
        "test": {"pieces": 1, "mean_notes": 3.0, "longest_notes": 3}
    }
