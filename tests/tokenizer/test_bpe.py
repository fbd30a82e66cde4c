"""Byte pairs: lossless, deterministic, applied as by miditok, learned from the given music."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miditok import REMI, TokSequence

from coma_gen.core.errors import UserError
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.bpe import bar_words
from coma_gen.tokenizer.codec import encode_grid
from coma_gen.tokenizer.remi import Tokenizer

SIZE = 420


@pytest.fixture(scope="module")
def learn(make_params: Any, make_music: Any) -> Any:
    def learn(seeds: range, **changes: Any) -> Tokenizer:
        tokenizer = Tokenizer.build(make_params(vocab_size=SIZE, **changes))
        tokenizer.fit(make_music(seed, count=300, seconds=60.0) for seed in seeds)
        return tokenizer

    return learn


@pytest.fixture(scope="module")
def learned(learn: Any) -> Tokenizer:
    return learn(range(6), pedal="tokens")


def test_learned_ids_stand_for_several_base_tokens(learned: Tokenizer) -> None:
    vocabulary = learned.vocabulary
    assert learned.vocab_size == SIZE
    assert vocabulary.learned
    assert vocabulary.pieces[: len(vocabulary.base)] == tuple((i,) for i in range(len(vocabulary.base)))
    assert vocabulary.pieces[len(vocabulary.base)] == ()
    assert all(len(piece) >= 1 for piece in vocabulary.pieces[len(vocabulary.base) + 1 :])
    assert max(map(len, vocabulary.pieces)) > 1


def test_nothing_is_lost(learned: Tokenizer, make_music: Any) -> None:
    for seed in (0, 77):
        notes = make_music(seed)
        ids = learned.encode(notes)
        base = encode_grid(learned.grid(notes), learned.vocabulary)
        np.testing.assert_array_equal(learned.base_ids(ids), base)
        assert ids.dtype == np.uint16
        assert len(ids) < len(base)
    assert len(learned.encode(Notes.empty())) == 0


def test_miditok_gives_the_same_ids(
    learned: Tokenizer, tmp_path: Path, make_music: Any, score_of: Any
) -> None:
    learned.save(tmp_path)
    remi = REMI(params=tmp_path / "tokenizer.json")
    notes = make_music(9)
    score = score_of(learned.grid(notes), learned.vocabulary)
    expected = remi.encode(score, no_preprocess_score=True)[0].ids
    assert learned.encode(notes).tolist() == expected
    for index in range(learned.vocab_size):
        sequence = TokSequence(ids=[index], are_ids_encoded=True)
        remi.decode_token_ids(sequence)
        assert tuple(sequence.ids) == learned.vocabulary.pieces[index]


def test_learning_is_deterministic(learn: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        learn(range(4)).save(tmp_path / name)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_it_is_the_given_music_that_is_learned(learn: Any) -> None:
    assert learn(range(4)).vocabulary.pieces != learn(range(4, 8)).vocabulary.pieces


def test_saved_and_loaded_it_is_the_same(learned: Tokenizer, tmp_path: Path, make_music: Any) -> None:
    learned.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.vocabulary == learned.vocabulary
    np.testing.assert_array_equal(loaded.encode(make_music(11)), learned.encode(make_music(11)))


def test_no_table_shifts_byte_pairs(learned: Tokenizer) -> None:
    with pytest.raises(ValueError, match="byte-pair"):
        learned.shift_table(1, 0)


def test_silence_teaches_nothing(make_params: Any) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size"):
        Tokenizer.build(make_params(vocab_size=SIZE)).fit([Notes.empty()])


def test_words_begin_at_bars() -> None:
    words = bar_words(np.array([3, 5, 3, 3, 7], np.uint16), 3)
    assert [[ord(character) - 33 for character in word] for word in words] == [[3, 5], [3], [3, 7]]


def test_the_resolution_of_a_performance_does_not_depend_on_byte_pairs(
    learned: Tokenizer, make_params: Any, make_music: Any
) -> None:
    plain, notes = Tokenizer.build(make_params(pedal="tokens")), make_music(2)
    bits = learned.vocabulary.total_resolution_bits(learned.encode(notes))
    assert bits == pytest.approx(plain.common_resolution_bits(notes))
    assert bits == learned.common_resolution_bits(notes)
