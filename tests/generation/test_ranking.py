"""Continuations are ranked by their distance to the prompt, against hand-computed measures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from small_models import written_model

from coma_gen.generation.generate import continue_midi, generate_request
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.ranking import distance_from
from coma_gen.generation.request import Request
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.measures import DIATONIC, nearest_scale, share_in_scale
from coma_gen.midi.notes import Notes
from coma_gen.midi.prompt import read_prompt

G_MAJOR = [67, 69, 71, 72, 74, 76, 78, 79]
PROMPT = Notes.of(range(8), [1.0] * 8, G_MAJOR, [64] * 8)


def test_the_nearest_scale_by_hand() -> None:
    assert (nearest_scale(PROMPT) == DIATONIC[7]).all() and DIATONIC[7].nonzero()[0].tolist() == [
        0, 2, 4, 6, 7, 9, 11,
    ]  # fmt: skip
    assert share_in_scale(Notes.of([0, 1], [1, 1], [65, 66], [64, 64]), DIATONIC[7]) == 0.5
    assert share_in_scale(Notes.empty(), DIATONIC[0]) == 0


def test_distances_by_hand() -> None:
    assert distance_from(PROMPT, PROMPT) == 0
    assert distance_from(PROMPT, Notes.empty()) == math.inf
    louder = Notes.of(range(8), [1.0] * 8, G_MAJOR, [80] * 8)
    assert distance_from(PROMPT, louder) == pytest.approx(1 / 5)  # 80 / 64 = 1.25
    outside = Notes.of(range(8), [1.0] * 8, [*G_MAJOR[:6], 68, 70], [64] * 8)
    assert distance_from(PROMPT, outside) == pytest.approx(0.25 / 0.1 / 5)
    half = Notes.of(range(0, 8, 2), [2.0] * 4, G_MAJOR[::2], [64] * 4)  # half as dense, twice as long
    assert distance_from(PROMPT, half) == pytest.approx(2 * math.log(2) / math.log(1.25) / 5)


def test_the_best_of_several_are_those_of_as_many_draws(tmp_path: Path) -> None:
    composer = MusicGenerator.load(written_model(tmp_path / "model"))
    midi = midi_bytes(PROMPT)
    prompt = read_prompt(midi, name="prompt", from_second=None, seconds=None, open_pedal=False)
    everything = generate_request(composer, prompt, Request(seconds=3.0, num=5, seed=2))
    best = generate_request(composer, prompt, Request(seconds=3.0, num=2, best_of=5, seed=2))
    distances = [distance_from(PROMPT, piece.new) for piece in everything]
    assert [piece.distance for piece in best] == sorted(distances)[:2]
    for piece in best:
        assert piece.draw is not None and piece.added == everything[piece.draw - 1].added
        assert piece.tokens_of_all_draws == sum(each.tokens + each.redrawn for each in everything)
    assert all(piece.draw is None for piece in everything)
    files = continue_midi(composer, midi, Request(seconds=3.0, best_of=5, seed=2), name="prompt")
    assert files == [prompt.append_track(best[0].added)]
