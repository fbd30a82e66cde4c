"""Token healing: a byte-pair prompt is encoded like the whole performance, with an open prefix at the end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small_params, written_model

from coma_gen.generation.generate import generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.token_healing import PrefixConstraint, split_prompt
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.remi import Tokenizer


def steady(seed: int, count: int = 200) -> Notes:
    """Eighths of few pitches: whole bars of it become one id."""
    draw = np.random.default_rng(seed)
    pitch = 60 + np.array([0, 4, 7, 12])[draw.integers(0, 4, count)]
    return Notes.of(0.25 * np.arange(count), [0.25] * count, pitch, [64] * count)


@pytest.fixture(scope="module")
def learned() -> Tokenizer:
    tokenizer = Tokenizer.build(small_params().tokenizer.model_copy(update={"vocab_size": 700}))
    tokenizer.fit([steady(seed) for seed in range(6)])
    return tokenizer


@pytest.fixture(scope="module")
def bpe_composer(tmp_path_factory: pytest.TempPathFactory) -> MusicGenerator:
    music = [steady(seed) for seed in range(6)]
    return MusicGenerator.load(written_model(tmp_path_factory.mktemp("steady"), vocab_size=700, music=music))


@settings(max_examples=60)
@given(st.integers(0, 5), st.integers(1, 60))
def test_what_is_read_is_how_the_whole_begins(learned: Tokenizer, seed: int, count: int) -> None:
    whole = learned.encode(steady(seed)).tolist()
    ids = learned.encode(steady(seed, count=200).until(0.25 * count))
    read, prefix = split_prompt(ids, learned.vocabulary)
    assert read == whole[: len(read)]
    assert [*learned.base_ids(read), *prefix] == learned.base_ids(ids).tolist()
    assert learned.vocabulary.base_types[prefix[0]] == "Bar"
    assert learned.vocabulary.base_types[prefix[-1]] == "Duration"
    assert max(map(len, learned.vocabulary.pieces)) > 20


def test_without_byte_pairs_all_is_read(composer: MusicGenerator, scale: Notes) -> None:
    ids = composer.tokenizer.encode(scale)
    assert split_prompt(ids, composer.tokenizer.vocabulary) == (ids.tolist(), ())
    assert split_prompt(ids[:0], composer.tokenizer.vocabulary) == ([], ())


def test_a_pedal_that_rises_behind_the_last_note_is_the_models_to_lift() -> None:
    tokenizer = Tokenizer.build(small_params().tokenizer.model_copy(update={"pedal": "tokens"}))
    ids = tokenizer.encode(Notes.of([0.0, 1.0], [0.5, 0.5], [60, 62], [64, 64], [(0.5, 5.0)]))
    read, _ = split_prompt(ids, tokenizer.vocabulary)
    types = [tokenizer.vocabulary.base_types[index] for index in read]
    assert types[-1] == "Duration"
    assert (types.count("Pedal"), types.count("PedalOff")) == (1, 0)


def test_ids_agree_when_they_begin_alike_and_go_on_at_a_later_position(learned: Tokenizer) -> None:
    vocabulary, speller = learned.vocabulary, PrefixConstraint(learned.vocabulary)
    bar = vocabulary.span("Bar").start
    base = learned.base_ids(learned.encode(steady(0)))[:9].tolist()
    for count in range(1, 9):
        prefix = base[:count]
        expected = [
            bool(piece)
            and (
                list(piece) == prefix[: len(piece)]
                or (list(piece[:count]) == prefix and vocabulary.base_types[piece[count]] == "Position")
            )
            for piece in vocabulary.pieces
        ]
        assert speller.matching_ids(prefix).tolist() == expected
        assert expected[bar] and sum(expected) >= 1


@settings(max_examples=20)
@given(st.integers(0, 5), st.integers(1, 30), st.integers(0, 99))
def test_a_continuation_goes_on_from_exactly_the_prompt(
    bpe_composer: MusicGenerator, seed: int, count: int, draw: int
) -> None:
    prompt = steady(seed).until(0.25 * count)
    (piece,) = generate_batch(
        bpe_composer,
        [prompt],
        seconds=2.0,
        sampling=SamplingParams(),
        seed=draw,
        max_tokens=30,
        max_empty_bars=3,
    )
    assert piece.valid and piece.tokens <= 30
    assert piece.notes.until(prompt.end_of_onsets + 0.01) == prompt
    assert (piece.added.onset > prompt.end_of_onsets).all()
