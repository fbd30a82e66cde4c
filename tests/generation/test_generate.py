"""Generated music is valid, reproducible by seed, and keeps the prompt unchanged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import symusic
from midi_builder import note, program, smf, tempo, track

from coma_gen.core.artifact import read_manifest, write_manifest
from coma_gen.core.errors import UserError
from coma_gen.generation.continuation import Continuation
from coma_gen.generation.generate import continue_midi, generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.request import Request
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.splice import decode_continuation, drop_overlaps
from coma_gen.midi.io import midi_bytes, read_notes
from coma_gen.midi.notes import Notes

SAMPLING = SamplingParams(top_p=0.95)
SHIFTS = [0.0, 0.0026, 0.005, 0.0104, 0.013, 0.0156, 0.02]


def pieces(composer: MusicGenerator, prompts: list[Notes | None], **changed: object) -> list[Continuation]:
    settings = {"seconds": 5.0, "sampling": SAMPLING, "seed": 0, "max_tokens": 600} | changed
    return generate_batch(composer, prompts, **settings)  # type: ignore[arg-type]


def test_every_sequence_of_an_untrained_model_is_valid_music(composer: MusicGenerator, scale: Notes) -> None:
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
    made = pieces(
        MusicGenerator.load(model(tmp_path, **options)), [None, scale], seconds=500.0, max_tokens=70
    )
    assert all(piece.valid and piece.tokens == 70 for piece in made)


def test_a_piece_depends_on_its_seed_and_index_alone_not_on_its_neighbors(
    composer: MusicGenerator, scale: Notes
) -> None:
    together = pieces(composer, [None, scale, None])
    assert pieces(composer, [None, None, None])[2].notes == together[2].notes
    assert together[0].notes != together[2].notes
    assert pieces(composer, [None], seed=1)[0].notes != together[0].notes


def test_prompt_comes_back_unchanged_and_new_music_begins_at_its_end(composer: MusicGenerator) -> None:
    prompt = Notes.of([0.0013, 0.777, 1.5001], [0.31, 0.29, 0.3], [50, 60, 70], [33, 77, 91])
    (piece,) = pieces(composer, [prompt])
    assert piece.prompt_end == prompt.end_of_onsets
    assert piece.notes.between(0, 1.4) == prompt.between(0, 1.4)
    assert len(piece.notes) == len(prompt) + len(piece.new)
    step = 1 / composer.tokenizer.vocabulary.positions_per_second
    later = piece.notes.onset[len(prompt.between(0, 1.5)) :]
    assert later.min() >= prompt.end_of_onsets - step


def test_new_tokens_decode_at_the_times_they_have_behind_the_prompt(
    composer: MusicGenerator, scale: Notes
) -> None:
    tokenizer = composer.tokenizer
    whole = tokenizer.encode(scale)
    note_ends = [
        index + 1 for index, token in enumerate(whole) if tokenizer.token_types[token] == ("Duration",)
    ]
    assert len(note_ends) == len(scale)
    for notes, cut in enumerate([0, *note_ends]):
        new = decode_continuation(tokenizer, whole[:cut], whole[cut:])
        np.testing.assert_allclose(new.onset, tokenizer.decode(whole).onset[notes:])


def test_music_reaches_the_seconds_asked_for_or_the_bound_on_tokens(composer: MusicGenerator) -> None:
    (short,) = pieces(composer, [None], seconds=100.0, max_tokens=50)
    assert short.tokens == 50
    (long,) = pieces(composer, [None], seconds=3.0, max_tokens=5000)
    assert long.tokens < 5000


def test_greedy_needs_no_seed(composer: MusicGenerator, scale: Notes) -> None:
    greedy = SamplingParams(temperature=0)
    one, other = (pieces(composer, [scale], sampling=greedy, seed=seed)[0].notes for seed in (0, 9))
    assert one == other


def test_midi_in_and_out(model_folder: Path, scale: Notes) -> None:
    request = Request(seconds=2.0, seed=4, tokens=200, prompt_seconds=3.0, num=2)
    composer, content = MusicGenerator.load(model_folder), midi_bytes(scale)
    first = continue_midi(composer, content, request, name="prompt")
    assert first == continue_midi(composer, content, request, name="prompt")
    assert len(first) == 2 and first[0] != first[1]
    assert read_notes(first[0]).between(0, 2.4) == scale.between(0, 2.4)


def test_wrong_settings_and_prompts_are_refused(composer: MusicGenerator) -> None:
    with pytest.raises(UserError, match=r"(?s)seconds.*top_p"):
        continue_midi(composer, None, Request(seconds=0, top_p=2.0), name="prompt")
    with pytest.raises(UserError, match="prompt: must be a MIDI file"):
        continue_midi(composer, b"not midi", Request(seconds=1), name="prompt")


def test_every_new_note_is_later_than_the_splice_and_every_earlier_one_is_the_prompts(
    tmp_path: Path, model: Callable[..., Path]
) -> None:
    """Also where the prompt's last notes lie between positions."""
    prompts = [
        Notes.of([0.4, 0.9 + shift, 0.9 + shift], [0.1] * 3, [60, 30, 64], [64] * 3) for shift in SHIFTS
    ]
    for composer in (
        MusicGenerator.load(model(tmp_path / "plain")),
        MusicGenerator.load(model(tmp_path / "bpe", vocab_size=600)),
        MusicGenerator.load(model(tmp_path / "fine", positions_per_beat=96)),
    ):
        for number, piece in enumerate(pieces(composer, list(prompts), seconds=2.0)):
            assert piece.prompt is not None and piece.prompt_end is not None
            assert piece.added.onset.min(initial=9.0) > piece.prompt_end + 0.002
            assert piece.notes.until(piece.prompt_end + 0.001) == prompts[number]
            assert len(piece.new) == len(piece.added)
            assert piece.new.onset.max(initial=0.0) <= 2.0


def test_silence_before_the_prompt_is_none_of_the_models(composer: MusicGenerator, scale: Notes) -> None:
    early, late = (
        piece.added
        for notes in (scale, scale.shifted(1234.5))
        for piece in pieces(composer, [notes], seconds=2.0)
    )
    np.testing.assert_allclose(late.onset - 1234.5, early.onset, atol=1e-9)
    assert late.pitch.tolist() == early.pitch.tolist()


def test_a_key_that_the_prompt_holds_is_not_struck(composer: MusicGenerator) -> None:
    drone = Notes.of([0.0] * 60, [30.0] * 60, range(30, 90), [64] * 60)
    (piece,) = pieces(composer, [drone], seconds=10.0)
    assert piece.left_out > 0
    assert not set(piece.added.pitch.tolist()) & set(range(30, 90))
    new = Notes.of([1.0, 3.0, 1.0], [1, 1, 1], [60, 60, 61], [64] * 3)
    prompt = Notes.of([0.0, 0.5], [3.0, 0.1], [60, 61], [64, 64])
    assert drop_overlaps(new, prompt, 0.02) == Notes.of([1.0, 3.0], [1, 1], [61, 60], [64, 64])


def test_notes_that_the_model_does_not_know_are_the_prompts_all_the_same(composer: MusicGenerator) -> None:
    prompt = Notes.of([0.0, 1.0, 2.5], [0.5, 0.5, 0.5], [60, 62, 10], [64, 64, 64])
    (piece,) = pieces(composer, [prompt], seconds=2.0)
    assert piece.prompt_end == 2.5 and piece.left_out > 0
    assert piece.added.onset.min() > 2.5


def test_where_the_model_writes_the_pedal_it_lifts_the_prompts(
    tmp_path: Path, model: Callable[..., Path]
) -> None:
    composer = MusicGenerator.load(model(tmp_path, pedal="tokens"))
    assert composer.writes_pedal
    prompt = Notes.of([0.0, 1.0], [0.5, 0.5], [60, 62], [64, 64], [(0.25, 0.5), (0.75, 50.0)])
    lifts = set()
    for piece in pieces(composer, [prompt] * 8, seconds=4.0):
        assert piece.valid and piece.prompt is not None
        lifted = piece.added.pedal[0, 1]
        assert piece.added.pedal[0, 0] == 1.0 < lifted
        assert piece.prompt.pedal.tolist() == [[0.25, 0.5], [0.75, lifted]]
        assert piece.notes.pedal.tolist()[:2] == [[0.25, 0.5], [0.75, lifted]]
        lifts.add(lifted)
    assert len(lifts) > 1


def test_the_pedal_of_the_prompt_holds_nothing_that_is_new(composer: MusicGenerator) -> None:
    prompt = Notes.of([0.0, 1.0], [0.5, 0.5], [60, 62], [64, 64], [(0.75, 50.0)])
    (piece,) = pieces(composer, [prompt], seconds=4.0)
    assert piece.added.pedal.tolist() == [] and piece.notes.pedal.tolist() == [[0.75, 50.0]]


def test_the_file_has_the_prompts_own_ticks_and_tempi(composer: MusicGenerator) -> None:
    events = [tempo(0, 700_000), tempo(300, 350_000), *note(100, 300), *note(480, 700, 67), program(0, 6)]
    content = smf(track(*events, *note(0, 9, 40, channel=9)), division=96)
    request = Request(seconds=3.0, seed=2, tokens=200)
    (written,) = continue_midi(composer, content, request, name="prompt")
    score = symusic.Score.from_midi(written)
    assert [(each.time, each.mspq) for each in score.tempos] == [(0, 700_000), (300, 350_000)]
    assert score.ticks_per_quarter == 96
    prompt = [(n.time, n.duration, n.pitch) for n in score.tracks[0].notes]
    assert prompt == [(100, 200, 60), (480, 220, 67)]
    assert [(each.name, each.is_drum) for each in score.tracks] == [
        ("", False),
        ("", True),
        ("Continuation", False),
    ]
    assert {each.program for each in score.tracks if not each.is_drum} == {6}
    assert min(n.time for n in score.tracks[2].notes) > 480


def test_weights_refuse_a_tokenizer_that_is_not_theirs(tmp_path: Path, model: Callable[..., Path]) -> None:
    ours, other = model(tmp_path / "ours"), model(tmp_path / "other", velocities=31)
    shutil.rmtree(ours / "tokenizer")
    shutil.copytree(other / "tokenizer", ours / "tokenizer")
    manifest = read_manifest(ours, kind="model")
    (ours / "manifest.json").unlink()
    write_manifest(ours, kind="model", made_from=manifest.made_from, settings=manifest.settings)
    with pytest.raises(UserError, match="must hold the tokenizer that its weights were trained with"):
        MusicGenerator.load(ours)


def test_who_bounds_the_tokens_alone_gets_as_many_tokens_as_that() -> None:
    assert Request.of({"tokens": 100, "seconds": None}) == Request(seconds=None, tokens=100)
    assert Request.of({"tokens": 100, "seconds": 3.0}) == Request(seconds=3.0, tokens=100)
    assert Request.of({"tokens": None}) == Request()


def test_a_request_has_one_set_of_bounds() -> None:
    assert Request().faults() == []
    wrong = Request(0, 0, 0, -1, -1, -1.0, 0, 0.0, 2.0, "pitch,keys", -1, -1, -1.0, 0.0)
    assert [fault.where for fault in wrong.faults()] == [
        "seconds",
        "tokens",
        "num",
        "best_of",
        "seed",
        "max_empty_bars",
        "max_rewinds",
        "from_second",
        "prompt_seconds",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "truncate",
    ]
    for value in (float("nan"), float("inf")):
        assert Request(seconds=value, temperature=value, prompt_seconds=value).faults()


def test_prompt_and_new_music_have_a_bound_together() -> None:
    prompt = Notes.of([39_000.0], [1.0], [60], [64])
    assert Request(seconds=600.0).seconds_after(prompt) == 600.0
    assert Request(seconds=None, tokens=5).seconds_after(prompt) == 600.0
    assert Request(seconds=None, tokens=5).seconds_after(None) == 39_600.0
    with pytest.raises(UserError, match="seconds: prompt and new music must last at most 39,600"):
        Request(seconds=601.0).seconds_after(prompt)
