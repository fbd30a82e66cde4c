"""Musical controls: their logit biases, their effect on pieces, and the grammar."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import SCALE, written_model

from coma_gen.generation.continuation import Continuation
from coma_gen.generation.controls import Controls, key_of
from coma_gen.generation.generate import generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.midi.notes import Notes

NUM = 8


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> MusicGenerator:
    return MusicGenerator.load(written_model(tmp_path_factory.mktemp("model")))


def pieces(composer: MusicGenerator, **wishes: float | str) -> list[Continuation]:
    return generate_batch(
        composer,
        [SCALE] * NUM,
        seconds=6,
        sampling=SamplingParams(top_p=0.95),
        seed=1,
        max_tokens=400,
        controls=Controls(**wishes),
        desc=None,
    )


MEASURES = {
    "density": lambda new: len(new) / max(new.end_of_onsets, 0.1),
    "loudness": lambda new: new.velocity.mean(),
    "register": lambda new: new.pitch.mean(),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_wish_moves_every_piece_its_way(composer: MusicGenerator, name: str) -> None:
    more, less = (pieces(composer, **{name: strength}) for strength in (2.0, -2.0))
    for up, down in zip(more, less, strict=True):
        assert up.valid and down.valid
        assert MEASURES[name](up.new) > MEASURES[name](down.new)


def test_a_key_keeps_to_its_scale_and_no_wish_changes_nothing(composer: MusicGenerator) -> None:
    scale = [2, 4, 6, 7, 9, 11, 1]
    share = [
        np.mean([np.isin(each.new.pitch % 12, scale).mean() for each in pieces(composer, **wish)])
        for wish in ({}, {"key": "D major"})
    ]
    assert share[0] < 0.75 and share[1] > 0.9
    plain = generate_batch(
        composer,
        [SCALE],
        seconds=6,
        sampling=SamplingParams(top_p=0.95),
        seed=1,
        max_tokens=400,
        desc=None,
    )
    assert plain[0].added == pieces(composer)[0].added


def test_a_learned_token_is_pulled_as_its_parts(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = written_model(tmp_path_factory.mktemp("paired"), vocab_size=340)
    vocabulary = MusicGenerator.load(folder).tokenizer.vocabulary
    logit_bias = Controls(density=0.5, loudness=1, register=-1).logit_bias(vocabulary, None)
    assert logit_bias is not None and len(logit_bias) == len(vocabulary)
    learned = next(index for index, parts in enumerate(vocabulary.pieces) if len(parts) == 2)
    assert logit_bias[learned] == pytest.approx(sum(logit_bias[part] for part in vocabulary.pieces[learned]))


@pytest.mark.parametrize(
    ("pitches", "key"),
    [
        ([60, 62, 64, 65, 67, 69, 71, 72, 67, 60], (0, "major")),
        ([57, 59, 60, 62, 64, 65, 68, 69, 64, 57], (9, "minor")),
        ([66, 68, 70, 71, 73, 75, 77, 78, 73, 66], (6, "major")),
    ],
)
def test_the_key_of_a_prompt(pitches: list[int], key: tuple[int, str]) -> None:
    length = [1.0 if pitch % 12 == key[0] else 0.4 for pitch in pitches]
    assert key_of(Notes.of(np.arange(len(pitches)) * 1.0, length, pitches, [64] * len(pitches))) == key


def test_what_is_no_wish_is_refused() -> None:
    wishes = Controls(density=9, loudness=float("nan"), register=-3, key="H major")
    assert [fault.where for fault in wishes.faults()] == ["density", "loudness", "key"]
    for key in ("C major", "f# minor", "Bb Major", "prompt", "e♭ minor", None):
        assert Controls(key=key).faults() == []
