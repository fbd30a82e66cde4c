"""Round-trip fidelity for music whose losses are known."""

from __future__ import annotations

from typing import Any

import pytest

from coma_gen.core.errors import UserError
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.round_trip import check, fidelity, match_notes


def test_a_known_round_trip(make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params(pedal="ignore"))
    notes = Notes.of([0, 1.005, 2.005, 3], [0.5, 0.5, 20, 0.5], [60, 60, 62, 20], [63, 61, 63, 63], [[0, 1]])
    found = fidelity(tokenizer, [notes])
    assert (found["notes"], found["notes_lost"], found["notes_added"]) == (4, 1, 0)
    assert found["onset_error_ms"]["max"] == pytest.approx(5.0)
    assert found["onset_error_ms"]["mean"] == pytest.approx(-10 / 3)
    assert found["onset_error_ms"]["rms"] == pytest.approx((50 / 3) ** 0.5)
    assert found["duration_error_ms"] == pytest.approx({"mean": 0.0, "rms": 0.0, "max": 0.0}, abs=1e-6)
    assert found["clipped_error_ms"] == pytest.approx({"mean": -12_000, "rms": 12_000, "max": 12_000})
    assert found["velocity_error"] == pytest.approx({"mean": -2 / 3, "rms": (4 / 3) ** 0.5, "max": 2})
    assert found["durations_clipped"] == 1
    assert (found["pedal_events"], found["pedal_events_lost"]) == (2, 2)
    assert found["tokens_per_note"] == 14 / 4


def test_pedal_tokens_lose_no_pedal(make_params: Any, make_music: Any) -> None:
    found = fidelity(Tokenizer.build(make_params(pedal="tokens")), [make_music(0)])
    assert (found["pedal_events"], found["pedal_events_lost"]) == (12, 0)


def test_ordinary_music_comes_through(make_params: Any, make_music: Any) -> None:
    params = make_params()
    found = fidelity(Tokenizer.build(params), [make_music(seed, seconds=60.0) for seed in range(3)])
    assert (found["notes_lost"], found["notes_added"]) == (0, 0)
    assert found["onset_error_ms"]["max"] <= 1000 / 96 + 1e-6
    assert found["end_ratio"] == pytest.approx(1, abs=1e-3)
    assert 0 < found["vocabulary_used"] <= 1
    check({"train": found}, params)


def test_silence_is_faithful(make_params: Any) -> None:
    params = make_params()
    check({"train": fidelity(Tokenizer.build(params), [Notes.empty()])}, params)


def test_notes_pair_with_the_nearest_of_their_pitch() -> None:
    true = Notes.of([0.0, 0.1, 5.0, 9.0], [1, 1, 1, 1], [60, 60, 60, 61], [64] * 4)
    decoded = Notes.of([0.02, 5.1, 7.0, 9.0], [1, 1, 1, 1], [60, 60, 60, 62], [64] * 4)
    ours, theirs = match_notes(true, decoded)
    assert (ours.tolist(), theirs.tolist()) == ([0, 2], [0, 1])


def test_limits_are_named(make_params: Any) -> None:
    params = make_params(max_onset_rms_ms=1.0, max_end_ratio_error=0.01)
    measured = {"onset_error_ms": {"rms": 3.0}, "end_drift": 0.02}
    with pytest.raises(UserError) as caught:
        check({"train": measured, "validation": {**measured, "end_drift": 0.0}}, params)
    told = [(fault.where, fault.got) for fault in caught.value.faults]
    assert told == [
        ("tokenizer.max_onset_rms_ms", "3 ms on train"),
        ("tokenizer.max_end_ratio_error", "0.02 on train"),
        ("tokenizer.max_onset_rms_ms", "3 ms on validation"),
    ]


def test_a_short_performance_is_not_blamed_for_the_grid(make_params: Any) -> None:
    params = make_params(max_onset_rms_ms=50.0)
    found = fidelity(Tokenizer.build(params), [Notes.of([0.0, 0.51], [0.1, 0.1], [60, 61], [64, 64])])
    assert abs(found["end_ratio"] - 1) > params.max_end_ratio_error
    check({"train": found}, params)
