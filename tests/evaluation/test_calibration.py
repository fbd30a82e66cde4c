"""Means by token type against a manual count; truncation changes only the truncated distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_corpus import Made

from coma_gen.evaluation.calibration import Figures, calibrate_sampler, means_by_type
from coma_gen.tokenizer.vocabulary import Vocabulary

BASE = (
    "PAD_None",
    "Bar_None",
    "Position_0",
    "Position_24",
    "Pitch_60",
    "Pitch_64",
    "Duration_a",
    "Duration_b",
)


def test_means_by_hand() -> None:
    vocabulary = Vocabulary(
        base=BASE,
        pieces=tuple((index,) for index in range(len(BASE))),
        positions_per_second=48,
        positions_per_bar=96,
        durations=(24, 96),
        velocities=(),
        pedal="extend",
    )
    came = np.array([4, 7, 6, 1])  # Pitch_60, 2 s, 0.5 s, Bar
    model = np.zeros((4, 8))
    model[0, [3, 4, 5]] = 0.2, 0.2, 0.6  # pitches 60 and 64 as 1 to 3
    model[1, [6, 7]] = 0.5, 0.5
    model[2, [6, 7]] = 0.8, 0.2
    model[3, [1, 2]] = 0.25, 0.75
    drawn = model.copy()
    drawn[1, [6, 7]] = 1.0, 0.0
    found = means_by_type(vocabulary, came, model, drawn)
    assert found["pitch"] == pytest.approx(
        {"places": 1, "music": 60, "model": 63, "sampled": 63, "standard_error": 0}
    )
    residuals = np.array([2 - 1.25, 0.5 - 0.8])
    assert found["duration"] == pytest.approx(
        {
            "places": 2,
            "music": 1.25,
            "model": (1.25 + 0.8) / 2,
            "sampled": (0.5 + 0.8) / 2,
            "standard_error": residuals.std() / 2**0.5,
        }
    )
    assert found["share_of_bar"]["music"] == 0.25 and found["share_of_bar"]["model"] == 0.25 / 4
    assert found["share_of_pitch"]["model"] == pytest.approx(0.8 / 4)
    assert set(found) == {"pitch", "duration", "share_of_bar", "share_of_pitch", "share_of_duration"}


def of(made: Made, **changes: Any) -> Figures:
    settings = {"excerpts": 5, "top_p": None, "truncate": ()} | changes
    params = made.params.sample.model_copy(update=settings)
    return calibrate_sampler(params, made.model, made.shards, device="cpu", threads=1)


def test_only_what_is_truncated_moves(made: Made) -> None:
    whole = of(made)
    assert all(figures["model"] == pytest.approx(figures["sampled"]) for figures in whole.values())
    cut = of(made, top_k=1, truncate=("duration",))
    for name, figures in cut.items():
        assert {**figures, "sampled": 0} == {**whole[name], "sampled": 0}
        moved = figures["sampled"] != pytest.approx(figures["model"], rel=1e-6)
        assert moved == (name == "duration")
    shares = [figures for name, figures in whole.items() if name.startswith("share_of_")]
    for mean in ("music", "model", "sampled"):
        assert sum(figures[mean] for figures in shares) == pytest.approx(1)
    assert whole["duration"]["places"] > 50 and whole["duration"]["standard_error"] > 0
