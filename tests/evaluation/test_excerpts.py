"""Excerpts of the shards do not overlap, and equal the tokenizer's decoded music."""

from __future__ import annotations

from itertools import pairwise

import pytest
from small_corpus import SECONDS, SPLITS, Made

from coma_gen.evaluation.excerpts import cut_excerpts, decode_piece
from coma_gen.generation.stage import excerpt
from coma_gen.midi.io import read_notes
from coma_gen.tokenizer.remi import Tokenizer


def test_music_of_the_shards_is_that_of_the_round_trip(made: Made) -> None:
    split, tokenizer = made.sharded("test"), Tokenizer.load(made.tokenizer)
    for row, name in enumerate(split.index["midi_filename"]):
        raw = read_notes(made.corpus / name)
        assert decode_piece(split, row, made.vocabulary) == tokenizer.decode(tokenizer.encode(raw))


@pytest.mark.parametrize(("count", "seconds"), [(5, 4.0), (100, 3.0), (2, 30.0), (1, 4.0)])
def test_spans_are_apart_and_even(made: Made, count: int, seconds: float) -> None:
    split = made.sharded("train")
    found = cut_excerpts(split, made.vocabulary, count=count, seconds=seconds)
    spans = SPLITS["train"] * max(1, int(SECONDS // seconds))
    assert len(found) == min(count, spans)
    starts = sorted((part.midi_filename, part.start) for part in found)
    assert all(one[0] != other[0] or other[1] - one[1] >= seconds for one, other in pairwise(starts))
    if count >= 5:
        assert len({name for name, _ in starts}) == SPLITS["train"]
    for part in found:
        row = split.index["midi_filename"].tolist().index(part.midi_filename)
        assert part.notes == excerpt(decode_piece(split, row, made.vocabulary), part.start, seconds)
        assert part.notes.onset[0] == 0 and part.notes.end_of_onsets < seconds
