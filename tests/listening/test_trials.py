"""Trials are balanced, blind and reproducible by seed; passages and n-gram music are as specified."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_corpus import Made

from coma_gen.core.errors import UserError
from coma_gen.evaluation.excerpts import decode_piece
from coma_gen.evaluation.kneser_ney import KneserNey
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.stage import excerpt
from coma_gen.listening.answer_key import AnswerKey
from coma_gen.listening.build import build_page
from coma_gen.listening.ngram_music import continue_by_ngrams, next_probabilities
from coma_gen.listening.passages import PassageSearch, cut_continuation, find_passages
from coma_gen.listening.trials import draw_sides
from coma_gen.tokenizer.remi import Tokenizer

SOURCES = ["model", "real", "5-gram"]


def test_pairs_and_sides_are_balanced() -> None:
    sides = draw_sides(SOURCES, 12, 0)
    assert Counter(sides) == {(a, b): 2 for a in SOURCES for b in SOURCES if a != b}
    assert sides == draw_sides(SOURCES, 12, 0) != draw_sides(SOURCES, 12, 1)
    few = Counter(frozenset(pair) for pair in draw_sides(SOURCES, 7, 3))
    assert sorted(few.values()) == [2, 2, 3]


def found(made: Made, *, count: int = 3, prompt: float = 2.0, seconds: float = 3.0) -> PassageSearch:
    return find_passages(
        made.sharded("test"), made.vocabulary, count=count, prompt_seconds=prompt, seconds=seconds, seed=0
    )


def test_what_follows_a_prompt_follows_it_in_the_piece(made: Made) -> None:
    passages = found(made).passages
    assert len(passages) == 3
    for passage in passages:
        split = made.sharded("test")
        row = int(np.flatnonzero(split.index["midi_filename"] == passage.midi_filename)[0])
        notes = decode_piece(split, row, made.vocabulary)
        splice = passage.prompt.end_of_onsets
        whole = excerpt(notes, passage.start, splice + 3.0)
        assert passage.prompt.joined(passage.real.shifted(splice)).onset == pytest.approx(whole.onset)
        assert passage.real.onset.min() > 0 and passage.real.onset.max() < 3.0
        assert passage.prompt.end_of_onsets < 2.0
        assert passage.other == cut_continuation(notes, passage.other_start, 3.0)
        assert (
            passage.other_start + 3.0 <= passage.start or passage.other_start >= passage.start + splice + 3.0
        )


def test_performances_that_are_too_short_are_counted(made: Made) -> None:
    assert found(made).too_short == 0
    with pytest.raises(UserError, match=r"must have a performance of 20\.0? s or more|20 s or more"):
        found(made, seconds=9.0)


def test_passages_do_not_depend_on_how_often_they_are_asked_for(made: Made) -> None:
    first, second = found(made), found(made)
    assert [each.start for each in first.passages] == [each.start for each in second.passages]
    assert all(a.other == b.other for a, b in zip(first.passages, second.passages, strict=True))


def counted(made: Made, order: int) -> KneserNey:
    train = made.sharded("train")
    pieces = [train.piece(int(row)) for row in train.originals]
    return KneserNey(pieces, len(made.vocabulary), order=order)


@pytest.mark.parametrize("order", [2, 4])
def test_what_comes_next_is_what_the_ngrams_score(made: Made, order: int) -> None:
    model = counted(made, order)
    piece = made.sharded("test").piece(0).astype(np.int64)
    everything = np.arange(len(made.vocabulary))
    for index in (40, 41, 42, 43):
        context = piece[index - order + 1 : index].tolist()
        chances = next_probabilities(model, context, everything)
        assert math.fsum(chances) == pytest.approx(1.0)
        scored = model.probabilities(piece[: index + 1].astype(np.uint16))[-1]
        assert chances[piece[index]] == pytest.approx(scored)


def test_ngram_music_goes_on_from_the_prompt(made: Made) -> None:
    tokenizer, model = Tokenizer.load(made.tokenizer), counted(made, 5)
    prompt = found(made).passages[0].prompt

    def music(number: int) -> object:
        return continue_by_ngrams(
            model, tokenizer, prompt, order=5, seconds=4.0, sampling=SamplingParams(top_p=0.8), seed=0,
            number=number, max_tokens=2000,
        )  # fmt: skip

    new = music(0)
    assert len(new) > 4 and new.onset.min() > 0 and new.onset.max() < 4.0  # type: ignore[attr-defined,arg-type]
    assert new == music(0) != music(1)


def build(made: Made, *, seed: int = 0, count: int = 3, seconds: float = 2.0) -> tuple[str, AnswerKey]:
    return build_page(
        {"model": made.model}, SOURCES, made.model.parent, count=count, prompt_seconds=2.0, seconds=seconds,
        seed=seed,
    )  # fmt: skip


@pytest.mark.slow
def test_the_page_hides_its_sources_and_repeats(made: Made, tmp_path: Path) -> None:
    text, sealed = build(made)
    assert build(made)[0] == text
    assert build(made, seed=1)[1].digest != sealed.digest
    plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text.replace(sealed.text, ""))
    assert len(plain) < 40_000 and plain.count("data:audio/ogg;") == 6
    assert re.findall(r"\b(?:5-gram|real|model|test-\d|Ada|Bo)\b", plain) == []
    (tmp_path / "page.html").write_text(text)
    read = AnswerKey.from_page(tmp_path / "page.html")
    assert (read.digest, read.trials) == (sealed.digest, sealed.trials)
    assert {name for pair in sealed.trials for name in pair} == set(SOURCES)
    assert len(set(map(tuple, sealed.about["sounds"]))) == 3


def test_too_many_trials_are_refused(made: Made) -> None:
    with pytest.raises(UserError, match="must have 200 passages in the test split"):
        build(made, count=200)


def test_shards_of_another_tokenizer_are_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "shards").symlink_to(made.shards)
    Tokenizer.build(made.params.tokenizer).save(tmp_path / "tokenizer", made_from={"split": "0" * 64})
    with pytest.raises(UserError, match="must be the tokenizer of"):
        build_page({}, ["real", "5-gram"], tmp_path, count=1, prompt_seconds=2.0, seconds=2.0, seed=0)
