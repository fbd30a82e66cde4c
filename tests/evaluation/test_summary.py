"""The figures against hand-computed sums, and what must not change them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coma_gen.config.load import load_params
from coma_gen.evaluation.summary import by_composer, by_type, piece_table, split_metrics
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.remi import Tokenizer
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


def test_half_the_grid_has_the_same_notes_and_the_same_corrected_code_length() -> None:
    """A code that knows nothing but the grid pays one bit more for each note on a grid twice as fine."""
    notes = Notes.of(
        [0.25 * step for step in range(60)], [0.5] * 60, [40 + step for step in range(60)], [64] * 60
    )
    index = INDEX.assign(notes=len(notes), seconds=notes.end)
    params = load_params(Path(__file__).resolve().parents[2] / "params.yaml").tokenizer
    figures = []
    for positions in (12, 24, 48):
        changed = {"positions_per_beat": positions, "duration_bins": ((0, 16, 12),)}
        tokenizer = Tokenizer.build(params.model_copy(update=changed))
        ids = np.array([tokenizer.bos_id, *tokenizer.encode(notes), tokenizer.eos_id], np.uint16)
        price = np.zeros(tokenizer.vocab_size)
        price[list(tokenizer.vocabulary.span("Position"))] = math.log(4 * positions)
        nats = np.concatenate([[0.0], price[ids[1:]]])
        figures.append(split_metrics(piece_table(index, [ids], [nats], tokenizer.vocabulary), resamples=100))
    assert [of["notes"] for of in figures] == [60] * 3
    assert [of["bits_per_note"] for of in figures] == pytest.approx(
        [math.log2(4 * of) for of in (12, 24, 48)]
    )
    assert len({round(of["bits_per_note_10ms"], 6) for of in figures}) == 1


def test_padding_counts_for_nothing() -> None:
    padded = np.concatenate([PIECE, [0, 0]]).astype(np.uint16)
    table = piece_table(INDEX, [PIECE], [NATS], vocabulary())
    assert vocabulary().total_resolution_bits(padded) == table["resolution_bits"].iloc[0]
    assert "PAD" not in by_type([PIECE], [NATS], vocabulary(), notes=2)


def test_composers_by_hand() -> None:
    rows = [("B", "u", 2, 1), ("A", "t", 4, 2), ("A", "v", 2, 2), ("B", "u", 2, 3)]
    index = pd.concat([INDEX.assign(composer=who, title=what, notes=notes) for who, what, notes, _ in rows])
    table = piece_table(index, [PIECE] * 4, [NATS * factor for *_, factor in rows], vocabulary())
    found = by_composer(table, resamples=100)
    assert [(row["composer"], row["performances"], row["compositions"]) for row in found] == [
        ("A", 2, 2),
        ("B", 2, 1),
    ]
    assert found[0]["bits_per_note"] == pytest.approx(9 * 4 / 6)
    assert found[1]["bits_per_note"] == pytest.approx(9 * 4 / 4)
    assert found[0]["bits_per_note_10ms_low"] < found[0]["bits_per_note_10ms_high"]
    assert found[1]["bits_per_note_10ms_low"] is None
