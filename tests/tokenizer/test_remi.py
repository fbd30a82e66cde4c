"""The tokenizer as a whole: vocabulary, errors and files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miditok import REMI

from coma_gen.config.rules import base_vocab_size
from coma_gen.core.errors import UserError
from coma_gen.core.io import sha256_file
from coma_gen.midi.augment import transpose
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.vocabulary import FORBIDDEN, Vocabulary


@pytest.mark.parametrize(
    "changes",
    [{}, {"pedal": "tokens"}, {"positions_per_beat": 48}, {"velocities": 1, "pitch_range": (60, 61)}],
)
def test_the_rule_knows_the_size_of_the_vocabulary(changes: dict[str, Any], make_params: Any) -> None:
    params = make_params(**changes)
    assert Tokenizer.build(params).vocab_size == base_vocab_size(params)


def test_positions_may_be_finer_than_any_duration(make_params: Any) -> None:
    vocabulary = Tokenizer.build(make_params(positions_per_beat=48)).vocabulary
    assert len(vocabulary.span("Position")) == vocabulary.positions_per_bar == 192
    assert vocabulary.duration_seconds[0] == pytest.approx(1 / 48)
    assert vocabulary.duration_seconds[-1] == 8.0
    assert len(vocabulary.durations) == 24 + 36 + 48


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"positions_per_beat": 36}, ["tokenizer.duration_bins"]),
        ({"positions_per_beat": 12}, ["tokenizer.duration_bins"]),
        ({"vocab_size": 328}, ["tokenizer.vocab_size"]),
        ({"duration_bins": ((0, 10_000, 1),)}, ["tokenizer.duration_bins"]),
        (
            {"pitch_range": (60, 50), "positions_per_beat": 7},
            ["tokenizer.pitch_range", "tokenizer.duration_bins"],
        ),
    ],
)
def test_contradictions_are_named_by_their_key(changes: Any, keys: list[str], make_params: Any) -> None:
    with pytest.raises(UserError) as caught:
        Tokenizer.build(make_params(**changes))
    assert list(dict.fromkeys(fault.where for fault in caught.value.faults)) == keys


def test_silence_is_no_tokens(make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params())
    assert len(tokenizer.encode(Notes.empty())) == 0
    assert tokenizer.decode([tokenizer.bos_id, tokenizer.eos_id]) == Notes.empty()


@pytest.mark.parametrize("gap", [40.0, 3600.0])
def test_long_silences_survive(gap: float, make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params())
    notes = Notes.of([0.5, gap], [0.5, 0.5], [60, 64], [64, 64])
    ids = tokenizer.encode(notes)
    assert tokenizer.decode(ids).onset.tolist() == [0.5, gap]
    assert [tokenizer.token_types[i] for i in ids].count(("Bar",)) == gap // 2 + 1


def test_long_notes_are_cut_to_the_longest_bin(make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params())
    assert tokenizer.decode(tokenizer.encode(Notes.of([0], [30], [60], [64]))).duration.tolist() == [8.0]


def test_the_pedal_holds_notes_when_extended(make_params: Any) -> None:
    notes = Notes.of([0], [0.5], [60], [64], [[0.25, 2.0]])
    held = Tokenizer.build(make_params(pedal="extend"))
    short = Tokenizer.build(make_params(pedal="ignore"))
    assert held.decode(held.encode(notes)).duration.tolist() == [2.0]
    assert short.decode(short.encode(notes)).duration.tolist() == [0.5]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path, make_params: Any, make_music: Any) -> None:
    tokenizer = Tokenizer.build(make_params(pedal="tokens"))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Tokenizer.build(make_params(pedal="tokens")).save(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["manifest.json", "tokenizer.json", "vocabulary.json"]
    assert all(sha256_file(tmp_path / "a" / name) == sha256_file(tmp_path / "b" / name) for name in files)
    assert "version" not in (tmp_path / "a" / "tokenizer.json").read_text()
    loaded = Tokenizer.load(tmp_path / "a")
    assert loaded.vocabulary == tokenizer.vocabulary
    assert loaded.digest == Tokenizer.load(tmp_path / "b").digest
    notes = make_music(0)
    np.testing.assert_array_equal(loaded.encode(notes), tokenizer.encode(notes))
    assert list(REMI(params=tmp_path / "a" / "tokenizer.json").vocab) == list(tokenizer.vocabulary.base)


def test_a_changed_tokenizer_is_refused(tmp_path: Path, make_params: Any) -> None:
    Tokenizer.build(make_params()).save(tmp_path)
    (tmp_path / "vocabulary.json").write_text("{}")
    with pytest.raises(UserError, match=r"vocabulary\.json"):
        Tokenizer.load(tmp_path)


def test_the_vocabulary_explains_itself(tmp_path: Path, make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params())
    tokenizer.save(tmp_path)
    vocabulary = Vocabulary.load(tmp_path)
    assert json.loads((tmp_path / "vocabulary.json").read_text())["special_ids"] == {
        "pad": 0,
        "bos": 1,
        "eos": 2,
    }
    assert vocabulary.token_types[0] == ("PAD",)
    first = vocabulary.span("Pitch").start
    assert (vocabulary.token_types[first], vocabulary.token_values[first]) == (("Pitch",), ("21",))
    assert vocabulary.steps["onset_step_s"] == pytest.approx(1 / 48)
    assert vocabulary.steps["velocity_step"] == 4.0


@pytest.mark.parametrize("semitones", [-3, 0, 2])
def test_a_shift_table_is_transposition(semitones: int, make_params: Any, make_music: Any) -> None:
    tokenizer = Tokenizer.build(make_params())
    notes = make_music(1)
    table = tokenizer.shift_table(semitones, 0)
    np.testing.assert_array_equal(
        table[tokenizer.encode(notes)], tokenizer.encode(transpose(notes, semitones))
    )


def test_a_shift_table_moves_velocities_and_forbids_lost_pitches(make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params())
    vocabulary = tokenizer.vocabulary
    table = tokenizer.shift_table(-1, 2)
    pitch, velocity = vocabulary.span("Pitch"), vocabulary.span("Velocity")
    assert table[pitch.start] == FORBIDDEN
    assert table[pitch.start + 1] == pitch.start
    assert table[velocity.start] == velocity.start + 2
    assert table[velocity.stop - 1] == velocity.stop - 1
    unchanged = [i for i in range(len(table)) if i not in pitch and i not in velocity]
    assert table[unchanged].tolist() == unchanged


def test_the_common_resolution_by_hand(make_params: Any) -> None:
    tokenizer = Tokenizer.build(make_params(velocities=16))
    notes = Notes.of([0, 1], [0.25, 1.0], [60, 62], [64, 64])
    onset, velocity = math.log2(1 / 48 / 0.01), math.log2(8 / 4)
    durations = math.log2(1 / 48 / 0.01) + math.log2(1 / 24 / 0.01)
    assert tokenizer.common_resolution_bits(notes) == pytest.approx(2 * (onset + velocity) + durations)


def test_a_finer_grid_pays_at_the_common_resolution(make_params: Any, make_music: Any) -> None:
    notes = make_music(5)
    coarse, fine = (Tokenizer.build(make_params(positions_per_beat=p)) for p in (24, 48))
    difference = coarse.common_resolution_bits(notes) - fine.common_resolution_bits(notes)
    assert difference == pytest.approx(len(notes))
