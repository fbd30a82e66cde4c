"""The figures against sums by hand, and what may not change them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from coma_gen.evaluation.summary import by_type, piece_table, split_metrics
from coma_gen.tokenizer.vocabulary import Vocabulary

BASE = (
    "PAD_None", "BOS_None", "EOS_None", "Bar_None", "Position_0", "Position_1", "Pitch_60", "Pitch_61",
    "Velocity_31", "Velocity_63", "Velocity_95", "Velocity_127", "Duration_0", "Duration_1",
)  # fmt: skip


def vocabulary(positions_per_second: int = 20) -> Vocabulary:
    return Vocabulary(
        base=BASE,
        pieces=(*((index,) for index in range(len(BASE))), (6, 8)),
        positions_per_second=positions_per_second,
        positions_per_bar=40,
        durations=(1, 2),
        velocities=(31, 63, 95, 127),
        pedal="ignore",
    )


# BOS Bar Position Pitch Velocity Duration Pitch Velocity Duration EOS: two notes
PIECE = np.array([1, 3, 4, 6, 8, 12, 7, 9, 13, 2], np.uint16)
NATS = np.array([0.0, *[math.log(2)] * 9])
INDEX = pd.DataFrame(
    {"midi_filename": ["a.mid"], "composer": ["A"], "title": ["t"], "notes": [2], "seconds": [4.0]}
)


def test_one_piece_by_hand() -> None:
    metrics = split_metrics(piece_table(INDEX, [PIECE], [NATS], vocabulary()), resamples=100)
    assert metrics["tokens"] == 9 and metrics["notes"] == 2 and metrics["performances"] == 1
    assert metrics["nll_per_token"] == pytest.approx(math.log(2))
    assert metrics["perplexity"] == pytest.approx(2)
    assert metrics["bits_per_note"] == pytest.approx(9 / 2)
    assert metrics["bits_per_second"] == pytest.approx(9 / 4)
    # onset step 50 ms, duration step 50 ms, velocity step 128 / 4 = 32
    common = math.log2(50 / 10) + math.log2(50 / 10) + math.log2(32 / 4)
    assert metrics["bits_per_note_10ms"] == pytest.approx(9 / 2 + common)
    assert "bits_per_note_10ms_low" not in metrics, "one composition gives no interval"


def test_halving_the_grid_takes_one_bit_of_onset_and_one_of_duration_from_the_correction() -> None:
    coarse, fine = (
        split_metrics(piece_table(INDEX, [PIECE], [NATS], vocabulary(rate)), resamples=100)
        for rate in (20, 40)
    )
    assert coarse["notes"] == fine["notes"]
    assert coarse["bits_per_note"] == fine["bits_per_note"]
    assert coarse["bits_per_note_10ms"] - fine["bits_per_note_10ms"] == pytest.approx(2)


def test_splits_are_sums_not_means_of_means_and_intervals_go_by_composition() -> None:
    index = pd.concat(
        [INDEX.assign(title=title, notes=notes) for title, notes in (("t", 2), ("u", 6), ("u", 2))]
    )
    nats = [NATS, 3 * NATS, NATS]
    metrics = split_metrics(piece_table(index, [PIECE] * 3, nats, vocabulary()), resamples=400)
    assert metrics["bits_per_note"] == pytest.approx(9 * 5 / 10)
    low, high = metrics["bits_per_note_10ms_low"], metrics["bits_per_note_10ms_high"]
    assert low < metrics["bits_per_note_10ms"] < high


def test_breakdown_by_type_adds_up_and_learned_tokens_are_their_own() -> None:
    merged = np.array([1, 3, 4, 14, 12, 2], np.uint16)
    nats = np.array([0.0, 1, 2, 3, 4, 5])
    found = by_type([merged], [nats], vocabulary(), notes=1)
    assert {name: row["tokens"] for name, row in found.items()} == {
        "Bar": 1, "Position": 1, "BPE": 1, "Duration": 1, "EOS": 1,
    }  # fmt: skip
    assert found["BPE"]["nll_per_token"] == 3
    assert sum(row["bits_per_note"] for row in found.values()) == pytest.approx(15 / math.log(2))
