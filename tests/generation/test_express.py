"""Expression for given notes: only velocities and lengths change, and they come from the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import symusic
from midi_builder import note, pedal, program, smf, tempo, track
from small_models import SCALE, written_model

from coma_gen.core.errors import UserError
from coma_gen.generation.express import ExpressedFile, express, express_midi
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.touch import TouchRequest
from coma_gen.midi.io import midi_bytes, read_notes, read_song
from coma_gen.midi.notes import Notes
from coma_gen.midi.touch import apply_touch


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> MusicGenerator:
    return MusicGenerator.load(written_model(tmp_path_factory.mktemp("model")))


def stiff() -> bytes:
    """Two hands, a kit and texts, all as hard and as long, as notation programs write them."""
    right = [each for k in range(8) for each in note(240 * k, 240 * k + 240, 60 + k % 3, 80)]
    left = [each for k in range(4) for each in note(480 * k, 480 * k + 480, 41, 80, channel=1)]
    kit = note(0, 60, 36, 99, channel=9)
    head = [tempo(0, 400_000), tempo(700, 700_000), (0, b"\xff\x03\x02RH"), pedal(5, 127), pedal(900, 0)]
    return smf(track(*head, *right), track(*left, *note(0, 100, 5, 80, channel=1)), track(*kit))


def once(composer: MusicGenerator, content: bytes, *, seed: int, timing: float) -> ExpressedFile:
    (played,) = express_midi(composer, content, name="a.mid", request=TouchRequest(seed=seed, timing=timing))
    return played


def test_pitches_and_onsets_stay_and_the_touch_is_drawn(composer: MusicGenerator) -> None:
    played = once(composer, stiff(), seed=1, timing=0)
    before, after = (symusic.Score.from_midi(content) for content in (stiff(), played.midi))
    for old, new in zip(before.tracks, after.tracks, strict=True):
        assert sorted((n.time, n.pitch) for n in old.notes) == sorted((n.time, n.pitch) for n in new.notes)
        assert [(c.time, c.number, c.value) for c in old.controls] == [
            (c.time, c.number, c.value) for c in new.controls
        ]
    assert [(t.time, t.mspq) for t in before.tempos] == [(t.time, t.mspq) for t in after.tempos]
    kit = after.tracks[2].notes[0]
    assert (kit.duration, kit.velocity) == (60, 99)
    low = next(n for n in after.tracks[1].notes if n.pitch == 5)
    assert (low.duration, low.velocity, played.unchanged) == (100, 80, 1)
    touched = [n for each in after.tracks[:2] for n in each.notes if n.pitch > 20]
    assert len({n.velocity for n in touched}) > 3 and len({n.duration for n in touched}) > 3
    again, other = (once(composer, stiff(), seed=seed, timing=0) for seed in (1, 2))
    assert again.midi == played.midi != other.midi


def test_what_is_drawn_obeys_the_grammar_and_does_not_look_at_the_old_touch(composer: MusicGenerator) -> None:
    louder = Notes.of(SCALE.onset, SCALE.duration / 3, SCALE.pitch, np.full(len(SCALE), 120))
    one, other = (
        express(composer, each, name="a", request=TouchRequest(seed=3, timing=0))[0]
        for each in (SCALE, louder)
    )
    assert one.velocity.tolist() == other.velocity.tolist()
    assert one.duration.tolist() == other.duration.tolist()
    drawn = Notes.of(SCALE.onset, one.duration, SCALE.pitch, one.velocity)
    ids = [composer.tokenizer.bos_id, *composer.tokenizer.encode(drawn).tolist()]
    assert composer.grammar.invalid(ids) == 0
    bins = set(composer.tokenizer.vocabulary.velocities)
    assert set(one.velocity.tolist()) <= bins


def test_onsets_move_by_steps_of_the_grid_and_keep_their_order(composer: MusicGenerator) -> None:
    step = 1 / composer.tokenizer.vocabulary.positions_per_second
    for steps in (1, 3):
        touch, again = (
            express(composer, SCALE, name="a", request=TouchRequest(2, timing=1000 * steps * step))[0]
            for _ in range(2)
        )
        moved = touch.delay / step
        assert touch.delay.tolist() == again.delay.tolist()
        assert len(set(moved.tolist())) > 1 and np.abs(moved).max() <= steps
        assert moved == pytest.approx(moved.round())
    dense = Notes.of(step * np.arange(60), [0.5] * 60, [60, 64] * 30, [64] * 60)
    (touch,) = express(composer, dense, name="a", request=TouchRequest(2, timing=100))
    assert (np.diff(dense.onset + touch.delay) > 0.9 * step).all()
    drawn = Notes.of(dense.onset + touch.delay, touch.duration, dense.pitch, touch.velocity)
    ids = [composer.tokenizer.bos_id, *composer.tokenizer.encode(drawn).tolist()]
    assert composer.grammar.invalid(ids) == 0


def test_the_file_is_moved_as_the_touch_says_and_all_else_stays(composer: MusicGenerator) -> None:
    played = once(composer, stiff(), seed=1, timing=60)
    before, after = (symusic.Score.from_midi(content).to("second") for content in (stiff(), played.midi))
    moved = []
    for old, new in zip(before.tracks, after.tracks, strict=True):
        for pitch in {n.pitch for n in old.notes}:
            starts = ([n.start for n in each.notes if n.pitch == pitch] for each in (old, new))
            moved += [b - a for a, b in zip(*map(sorted, starts), strict=True)]
    assert 0.015 < max(moved) < 0.063 and -0.063 < min(moved) < -0.015
    assert [n.start for n in after.tracks[2].notes] == [n.start for n in before.tracks[2].notes]


def test_lengths_can_stay_as_they_are_written(composer: MusicGenerator) -> None:
    request = TouchRequest(seed=1, timing=0, keep_lengths=True)
    (played,) = express_midi(composer, midi_bytes(SCALE), name="a", request=request)
    assert played.notes.duration == pytest.approx(SCALE.duration, abs=2e-3)
    assert len(set(played.notes.velocity.tolist())) > 3
    longer = Notes.of(SCALE.onset, 3 * SCALE.duration, SCALE.pitch, SCALE.velocity)
    (other,) = express_midi(composer, midi_bytes(longer), name="a", request=request)
    assert other.notes.velocity.tolist() != played.notes.velocity.tolist(), "the model hears them"


def test_no_note_moves_before_its_instrument_is_chosen() -> None:
    song = read_song(smf(track(*note(0, 100), program(480, 40), *note(480, 500))), name="a.mid")
    earlier = np.array([-0.05, -0.05])
    written = read_notes(apply_touch(song, np.array([1, 2], np.uint8), np.array([0.1, 0.1]), earlier))
    assert written.onset.tolist() == [0.0, 0.5]


def test_each_touch_is_the_same_beside_others(composer: MusicGenerator) -> None:
    looks: list[list[Notes]] = []
    request = TouchRequest(seed=3, num=3)
    three = express_midi(
        composer, midi_bytes(SCALE), name="a", request=request, watch=lambda find: looks.append(find())
    )
    assert three[0].midi == once(composer, midi_bytes(SCALE), seed=3, timing=25).midi
    assert len({each.midi for each in three}) == 3
    lengths = [[len(notes) for notes in each] for each in looks]
    assert lengths[-1] == [12, 12, 12] and lengths == sorted(lengths), "they grow together"
    for grown, made in zip(looks[-1], three, strict=True):
        assert grown.velocity.tolist() == made.notes.velocity.tolist()
        assert grown.onset == pytest.approx(made.notes.onset, abs=0.011)


def test_a_file_that_is_too_long_is_refused(composer: MusicGenerator) -> None:
    with pytest.raises(UserError, match=r"a\.mid: must be at most 20 tokens to be expressed here"):
        express_midi(composer, midi_bytes(SCALE), name="a.mid", request=TouchRequest(), max_tokens=20)


def test_a_key_is_released_before_it_is_struck_again() -> None:
    content = smf(track(*note(0, 100), *note(480, 500), *note(480, 500, 64), (700, b"\xb0\x7b\x00")))
    song = read_song(content, name="a.mid")
    written = read_notes(
        apply_touch(song, np.array([1, 2, 3], np.uint8), np.array([9.0, 0.0, 0.75]), np.zeros(3))
    )
    assert written.duration.tolist() == pytest.approx([0.5, 1 / 960, 0.75])
    assert written.velocity.tolist() == [1, 2, 3]


def test_what_cannot_be_expressed_is_refused(composer: MusicGenerator, tmp_path: Path) -> None:
    low = smf(track(*note(0, 480, 5)))
    with pytest.raises(UserError, match=r"low\.mid: must have a note that the model knows"):
        express_midi(composer, low, name="low.mid", request=TouchRequest())
    with pytest.raises(UserError, match="must have notes that are not drums"):
        express_midi(composer, smf(track()), name="a.mid", request=TouchRequest())
    paired = MusicGenerator.load(written_model(tmp_path, vocab_size=340))
    with pytest.raises(UserError, match="must not use byte pairs"):
        express_midi(paired, midi_bytes(SCALE), name="a.mid", request=TouchRequest())
