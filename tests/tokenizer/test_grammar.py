"""The grammar against miditok's own types, against what the encoder writes, and against random walks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.codec import decode_grid, encode_grid
from coma_gen.tokenizer.grammar import FOLLOWS, Grammar
from coma_gen.tokenizer.remi import Tokenizer, _build_remi
from coma_gen.tokenizer.vocabulary import Vocabulary


@pytest.fixture(scope="module", params=["base", "base with pedal", "byte pairs", "byte pairs with pedal"])
def tokenizer(request: Any, make_params: Any, make_music: Any) -> Tokenizer:
    pedal = "tokens" if "pedal" in request.param else "extend"
    size = 420 if "byte" in request.param else None
    tokenizer = Tokenizer.build(make_params(pedal=pedal, vocab_size=size))
    tokenizer.fit([make_music(seed, count=300, seconds=60.0) for seed in range(5)])
    return tokenizer


def ids_of(vocabulary: Vocabulary, *tokens: str) -> list[int]:
    return [vocabulary.base.index(token) for token in tokens]


def test_every_type_that_we_allow_miditok_allows_too(make_params: Any) -> None:
    graph = _build_remi(make_params(pedal="tokens")).tokens_types_graph
    for kind, followers in FOLLOWS.items():
        if kind == "START":
            continue
        theirs = {name.removesuffix("_None") for name in graph[kind]} - {"PAD", "BOS"}
        stricter = {"Pedal": {"Pedal"}, "PedalOff": {"PedalOff"}, "Bar": {"EOS"}, "Position": {"EOS"}}
        stricter |= {"Pitch": {"EOS"}, "Velocity": {"EOS"}}
        assert set(followers) == theirs - stricter.get(kind, set()), kind


def test_what_is_encoded_is_legal(tokenizer: Tokenizer, make_music: Any) -> None:
    grammar = Grammar.of(tokenizer.vocabulary)
    for seed in range(4):
        notes = make_music(seed, count=200, seconds=30.0)
        ids = [tokenizer.bos_id, *tokenizer.encode(notes).tolist(), tokenizer.eos_id]
        assert grammar.invalid(ids) == 0
        state = grammar.start_state
        for token in ids[1:]:
            assert grammar.allowed(state)[token]
            state = grammar.advance(state, token)
        assert not grammar.allowed(state).any()


def test_a_random_walk_is_music_that_encodes_to_itself(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    grammar, draw = Grammar.of(vocabulary), np.random.default_rng(0)
    for _ in range(5):
        state, walk = grammar.start_state, []
        while len(walk) < 300 or tokenizer.token_types[walk[-1]][-1] != "Duration":
            choices = np.flatnonzero(grammar.allowed(state))
            token = int(draw.choice(choices[choices != tokenizer.eos_id]))
            walk.append(token)
            state = grammar.advance(state, token)
        assert grammar.invalid(walk) == 0
        base = vocabulary.expanded(walk)
        grid = decode_grid(base, vocabulary)
        again = encode_grid(grid, vocabulary)
        np.testing.assert_array_equal(again[: len(base)], base)
        left = {vocabulary.base_types[token] for token in again[len(base) :]}
        assert left <= {"Bar", "Position", "PedalOff"}  # a pedal that is still down is released at the end
        assert not left or vocabulary.pedal == "tokens"


def test_specials_and_the_empty_id_never_follow(tokenizer: Tokenizer) -> None:
    grammar = Grammar.of(tokenizer.vocabulary)
    never = [tokenizer.pad_id, tokenizer.bos_id]
    never += [index for index, piece in enumerate(tokenizer.vocabulary.pieces) if not piece]
    states = [grammar.start_state]
    for token in tokenizer.encode(Notes.of([0, 1, 9], [1, 1, 1], [60, 61, 60], [64, 64, 64])):
        states.append(grammar.advance(states[-1], token))
    assert not grammar.allowed(np.array(states))[:, never].any()


@pytest.mark.parametrize(
    ("tokens", "faults"),
    [
        ((), 0),
        (("Bar_None", "EOS_None"), 1),
        (("Position_3",), 1),
        (("Bar_None", "Pitch_60"), 1),
        (("Bar_None", "Position_3", "Position_5"), 1),
        (("Bar_None", "Position_3", "Pitch_60", "Velocity_63", "Duration_0.1.24", "Position_3"), 1),
        (("Bar_None", "Position_3", "Pitch_60", "Velocity_63", "Duration_0.1.24", "Position_4"), 0),
        (("Bar_None", "Position_3", "Pitch_60", "Velocity_63", "Duration_0.1.24", "Pitch_60"), 1),
        (("Bar_None", "Position_3", "Pitch_60", "Velocity_63", "Duration_0.1.24", "Pitch_61"), 0),
        (
            (
                "Bar_None",
                "Position_3",
                "Pitch_60",
                "Velocity_63",
                "Duration_0.1.24",
                "Bar_None",
                "Position_0",
            ),
            0,
        ),
        (("Bar_None", "Position_3", "Velocity_63", "Duration_0.1.24", "Bar_None", "Position_0"), 1),
        (("Bar_None", "Position_3", "PedalOff_0"), 1),
        (("Bar_None", "Position_3", "Pedal_0", "Position_4", "PedalOff_0", "Pedal_0", "Pitch_60"), 0),
        (("Bar_None", "Position_3", "Pedal_0", "Position_4", "Pedal_0"), 1),
        (("Bar_None", "PAD_None", "Position_3"), 1),
        (("EOS_None", "Bar_None", "Bar_None"), 1),
    ],
)
def test_faults_are_counted_one_by_one(tokens: tuple[str, ...], faults: int, make_params: Any) -> None:
    vocabulary = Tokenizer.build(make_params(pedal="tokens")).vocabulary
    ids = ids_of(vocabulary, *tokens)
    assert Grammar.of(vocabulary).invalid(ids) == faults
    assert Grammar.of(vocabulary).invalid([vocabulary.bos_id, *ids]) == faults


def test_one_state_or_many_at_once(tokenizer: Tokenizer, make_music: Any) -> None:
    grammar, ids = Grammar.of(tokenizer.vocabulary), tokenizer.encode(make_music(3))
    states = grammar.states(ids)
    assert states[0] == grammar.start_state
    assert [grammar.advance(int(s), int(i)) for s, i in zip(states, ids, strict=False)] == states[1:].tolist()
    np.testing.assert_array_equal(grammar.advance(states[:-1], ids), states[1:])
    np.testing.assert_array_equal(grammar.allowed(states[:5]), [grammar.allowed(int(s)) for s in states[:5]])


def test_seconds_run_with_the_music(tokenizer: Tokenizer) -> None:
    grammar = Grammar.of(tokenizer.vocabulary)
    notes = Notes.of([0.5, 5.25], [0.5, 0.5], [60, 62], [64, 64])
    seconds = grammar.seconds(tokenizer.encode(notes))
    assert seconds[-1] == 5.25
    assert (np.diff(seconds) >= 0).all()
    assert grammar.seconds_at(0, grammar.start_state) == 0.0


def test_it_is_made_of_the_saved_vocabulary_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    grammar, ids = Grammar.of(Vocabulary.load(tmp_path)), tokenizer.encode(Notes.of([0], [1], [60], [64]))
    assert grammar.invalid(ids) == 0
    assert grammar.invalid(ids[::-1]) > 0
