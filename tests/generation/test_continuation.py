"""Generated music is valid, repeats with its seed, and leaves the prompt as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coma_gen.errors import UserError
from coma_gen.generation.continuation import Composer, Piece, compose, continue_midi, decoded_after
from coma_gen.generation.filters import Choice
from coma_gen.music.midi import midi_bytes, read_notes
from coma_gen.music.notes import Notes

CHOICE = Choice(top_p=0.95)


def pieces(composer: Composer, prompts: list[Notes | None], **changed: object) -> list[Piece]:
    settings = {"seconds": 5.0, "choice": CHOICE, "seed": 0, "max_tokens": 600} | changed
    return compose(composer, prompts, **settings)  # type: ignore[arg-type]


def test_every_sequence_of_an_untrained_model_is_valid_music(composer: Composer, scale: Notes) -> None:
    made = pieces(composer, [None] * 6 + [scale] * 6)
    assert all(piece.valid for piece in made)
    assert all(0 < piece.illegal < 1 for piece in made)
    assert sum(len(piece.new) for piece in made) > 0


@pytest.mark.parametrize(
    "options", [{"vocab_size": 600}, {"position_embedding": "learned", "max_seq_len": 32}], ids=str
)
def test_the_same_under_bpe_and_beyond_a_learned_position_embedding(
    options: dict[str, object], tmp_path: Path, model: Callable[..., Path], scale: Notes
) -> None:
    made = pieces(Composer.load(model(tmp_path, **options)), [None, scale], seconds=500.0, max_tokens=70)
    assert all(piece.valid and piece.tokens == 70 for piece in made)


def test_a_piece_depends_on_its_seed_and_place_alone_not_on_its_neighbours(
    composer: Composer, scale: Notes
) -> None:
    together = pieces(composer, [None, scale, None])
    assert pieces(composer, [None, None, None])[2].notes == together[2].notes
    assert together[0].notes != together[2].notes
    assert pieces(composer, [None], seed=1)[0].notes != together[0].notes


def test_prompt_comes_back_unchanged_and_new_music_begins_at_its_end(composer: Composer) -> None:
    prompt = Notes.of([0.0013, 0.777, 1.5001], [0.31, 0.29, 0.3], [50, 60, 70], [33, 77, 91])
    (piece,) = pieces(composer, [prompt])
    assert piece.joint == prompt.end_of_onsets
    assert piece.notes.between(0, 1.4) == prompt.between(0, 1.4)
    assert len(piece.notes) == len(prompt) + len(piece.new)
    step = 1 / composer.tokenizer.vocabulary.positions_per_second
    later = piece.notes.onset[len(prompt.between(0, 1.5)) :]
    assert later.min() >= prompt.end_of_onsets - step


def test_new_tokens_decode_at_the_times_they_have_behind_the_prompt(composer: Composer, scale: Notes) -> None:
    tokenizer = composer.tokenizer
    whole = tokenizer.encode(scale)
    note_ends = [
        place + 1 for place, token in enumerate(whole) if tokenizer.token_types[token] == ("Duration",)
    ]
    assert len(note_ends) == len(scale)
    for notes, cut in enumerate([0, *note_ends]):
        prompt, following = [tokenizer.bos_id, *whole[:cut].tolist()], whole[cut:].tolist()
        new = decoded_after(tokenizer, prompt, following)
        np.testing.assert_allclose(new.onset, tokenizer.decode(whole).onset[notes:])


def test_music_reaches_the_seconds_asked_for_or_the_bound_on_tokens(composer: Composer) -> None:
    (short,) = pieces(composer, [None], seconds=100.0, max_tokens=50)
    assert short.tokens == 50
    (long,) = pieces(composer, [None], seconds=3.0, max_tokens=5000)
    assert long.tokens < 5000


def test_greedy_needs_no_seed(composer: Composer, scale: Notes) -> None:
    greedy = Choice(temperature=0)
    one, other = (pieces(composer, [scale], choice=greedy, seed=seed)[0].notes for seed in (0, 9))
    assert one == other


def test_midi_in_and_out(model_folder: Path, scale: Notes) -> None:
    settings = {"seconds": 2.0, "seed": 4, "max_tokens": 200, "prompt_seconds": 3.0}
    first = continue_midi(model_folder, midi_bytes(scale), **settings)  # type: ignore[arg-type]
    assert first == continue_midi(model_folder, midi_bytes(scale), **settings)  # type: ignore[arg-type]
    notes = read_notes(first)
    assert notes.between(0, 2.4) == scale.between(0, 2.4)


def test_wrong_settings_and_prompts_are_refused(model_folder: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)top_p.*seconds"):
        continue_midi(model_folder, None, seconds=0, top_p=2.0)
    with pytest.raises(UserError, match="prompt"):
        continue_midi(model_folder, b"not midi", seconds=1)
