"""Our codec against miditok, token for token, and against itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.config.schema import TokenizerParams
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.codec import decode_grid, encode_grid
from coma_gen.tokenizer.grid import quantize, to_notes
from coma_gen.tokenizer.remi import Tokenizer, _build_remi

SETTINGS: list[dict[str, Any]] = [
    {},
    {"pedal": "tokens"},
    {"positions_per_beat": 12, "duration_bins": ((0, 4, 12),), "velocities": 8, "pedal": "tokens"},
    {"positions_per_beat": 48},
    {"positions_per_beat": 5, "duration_bins": ((0, 2, 1),), "velocities": 127, "pitch_range": (60, 61)},
]
NAMES = ("onset", "pitch", "duration", "velocity", "pedal")
note = st.tuples(
    st.floats(0, 30, allow_subnormal=False), st.floats(0, 12), st.integers(0, 127), st.integers(1, 127)
)
press = st.tuples(st.floats(0, 30, allow_subnormal=False), st.floats(0.0, 3.0))
music = st.tuples(st.lists(note, max_size=40), st.lists(press, max_size=6))


def notes_of(drawn: tuple[list[tuple[float, float, int, int]], list[tuple[float, float]]]) -> Notes:
    columns = list(zip(*drawn[0], strict=True)) or [(), (), (), ()]
    return Notes.of(*columns, pedal=[(start, start + length) for start, length in drawn[1]])


@pytest.mark.parametrize("changes", SETTINGS)
def test_the_codec_writes_what_miditok_writes(
    changes: dict[str, Any], make_params: Any, score_of: Any
) -> None:
    params: TokenizerParams = make_params(**changes)
    vocabulary, remi = Tokenizer.build(params).vocabulary, _build_remi(params)

    @settings(max_examples=40, derandomize=True)
    @given(music)
    def compare(drawn: Any) -> None:
        grid = quantize(notes_of(drawn), vocabulary)
        ids = encode_grid(grid, vocabulary)
        expected = remi.encode(score_of(grid, vocabulary), no_preprocess_score=True)
        assert ids.tolist() == expected[0].ids
        back = decode_grid(ids, vocabulary)
        for name in NAMES:
            np.testing.assert_array_equal(getattr(back, name), getattr(grid, name))
        if len(grid):
            track = remi.decode([expected[0]]).tracks[0]
            np.testing.assert_array_equal(track.notes.numpy()["time"], grid.onset)
            np.testing.assert_array_equal(track.pedals.numpy()["time"], grid.pedal[:, 0])

    compare()


@settings(max_examples=60, derandomize=True)
@given(drawn=music)
def test_every_note_comes_back_within_half_a_step(drawn: Any, make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params(pedal="ignore", pitch_range=(0, 127)))
    step = tokenizer.steps["onset_step_s"]
    notes = notes_of(drawn)
    decoded = tokenizer.decode(tokenizer.encode(notes))
    onsets = {
        (round(onset / step), int(pitch)) for onset, pitch in zip(notes.onset, notes.pitch, strict=True)
    }
    assert len(decoded) == len(onsets)
    for onset, pitch in zip(notes.onset, notes.pitch, strict=True):
        there = decoded.onset[decoded.pitch == pitch]
        assert np.abs(there - onset).min() <= step / 2 + 1e-9


def test_durations_and_velocities_come_back_within_half_a_bin(make_params: Any, make_music: Any) -> None:
    tokenizer = Tokenizer.build(make_params(pedal="ignore"))
    notes = make_music(3, count=40, seconds=400.0)
    decoded = tokenizer.decode(tokenizer.encode(notes))
    assert np.array_equal(decoded.pitch, notes.pitch)
    bins = tokenizer.steps["duration_bins_s"]
    for true, got in zip(notes.duration, decoded.duration, strict=True):
        assert abs(true - got) == pytest.approx(np.abs(bins - true).min())
    assert np.abs(decoded.velocity.astype(int) - notes.velocity).max() <= 2


def test_a_key_that_is_struck_again_is_released_first(make_params: Any) -> None:
    vocabulary = Tokenizer.build(make_params()).vocabulary
    grid = quantize(Notes.of([0, 1], [3, 1], [60, 60], [64, 64]), vocabulary)
    assert to_notes(grid, vocabulary).duration.tolist() == [1.0, 1.0]


def test_one_position_holds_a_pitch_once_the_longest(make_params: Any) -> None:
    vocabulary = Tokenizer.build(make_params()).vocabulary
    grid = quantize(Notes.of([0.5, 0.501], [0.25, 1.0], [60, 60], [90, 20]), vocabulary)
    assert len(grid) == 1
    assert to_notes(grid, vocabulary).duration.tolist() == [1.0]


def test_repedalling_within_a_position_survives(make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params(pedal="tokens"))
    notes = Notes.of([0], [1], [60], [64], [[0.5, 1.0], [1.001, 2.0], [2.5, 2.501]])
    ids = tokenizer.encode(notes)
    assert [tokenizer.token_types[i][0] for i in ids].count("Pedal") == 3
    np.testing.assert_allclose(tokenizer.decode(ids).pedal, notes.pedal, atol=1 / 48)


@settings(max_examples=60, derandomize=True)
@given(ids=st.lists(st.integers(0, 329), max_size=80))
def test_malformed_ids_decode_to_whatever_music_is_in_them(ids: list[int], make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params(pedal="tokens"))
    decoded = tokenizer.decode(np.array(ids, np.uint16))
    assert len(decoded) <= len(ids) // 3


def test_a_pedal_that_is_never_released_lasts_to_the_end(make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params(pedal="tokens"))
    ids = tokenizer.encode(Notes.of([0.0], [2.0], [60], [64], [[0.0, 5.0]]))
    assert tokenizer.decode(ids[:6]).pedal[0, 1] == 2.0


def test_shifting_folds_pitches_back_by_octaves(make_params: Any) -> None:
    vocabulary = Tokenizer.build(make_params()).vocabulary
    grid = quantize(Notes.of([0, 1, 2], [1, 1, 1], [21, 60, 108], [1, 64, 127]), vocabulary)
    assert grid.shifted(2, 1, vocabulary).pitch.tolist() == [23, 62, 98]
    assert grid.shifted(-2, 0, vocabulary).pitch.tolist() == [31, 58, 106]
    assert grid.shifted(0, 40, vocabulary).velocity.tolist() == [31, 31, 31]
