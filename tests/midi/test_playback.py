"""Sounding notes follow the pedals of their own channel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_builder import note, pedal, smf, tempo, track

from coma_gen.core.errors import UserError
from coma_gen.midi.io import midi_bytes, read_notes
from coma_gen.midi.notes import Notes
from coma_gen.midi.playback import read_sounding_notes
from coma_gen.midi.prompt import read_prompt
from coma_gen.midi.sustain import apply_sustain

ticks = st.integers(0, 4_000)


def ends(content: bytes) -> list[tuple[int, float]]:
    sounding = read_sounding_notes(content, name="a.mid")
    assert len(sounding.pedal) == 0
    return sorted(zip(sounding.pitch.tolist(), (sounding.onset + sounding.duration).tolist(), strict=True))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(ticks, st.integers(0, 900), st.integers(60, 63)), max_size=12),
    st.lists(st.tuples(ticks, st.integers(0, 127), st.sampled_from((0, 4))), max_size=8),
    st.lists(st.tuples(ticks, st.integers(200_000, 900_000)), max_size=3),
)
def test_on_one_channel_it_is_what_the_model_is_told(
    notes: list[tuple[int, int, int]], moves: list[tuple[int, int, int]], tempi: list[tuple[int, int]]
) -> None:
    events = [event for start, length, key in notes for event in note(start, start + length, key)]
    content = smf(track(*events, *(pedal(*move) for move in moves), *(tempo(*each) for each in tempi)))
    assert read_sounding_notes(content, name="a.mid") == apply_sustain(read_notes(content))


def test_a_pedal_holds_the_notes_of_its_channel() -> None:
    both = track(*note(0, 480, 60), pedal(240, 127), pedal(1920, 0), *note(0, 480, 64, channel=3))
    assert ends(smf(both)) == [(60, 2.0), (64, 0.5)]
    own = track(pedal(100, 127, 3), pedal(960, 0, 3))
    assert ends(smf(both, own)) == [(60, 2.0), (64, 1.0)]
    for_all = track(pedal(0, 127, 7), pedal(1440, 0, 7))
    assert ends(smf(both, for_all)) == [(60, 2.0), (64, 1.5)]


def test_a_key_that_another_channel_strikes_sounds_anew() -> None:
    content = smf(track(*note(0, 480, 60), pedal(0, 127), pedal(1920, 0), *note(960, 1200, 60, channel=3)))
    assert ends(content) == [(60, 1.0), (60, 1.25)]


def test_drums_do_not_sound_nor_does_their_pedal() -> None:
    content = smf(track(*note(0, 480, 60), *note(0, 99, 36, channel=9), pedal(0, 127, 9)))
    assert ends(content) == [(60, 0.5)]
    with pytest.raises(UserError, match="begins with"):
        read_sounding_notes(b"text", name="a.mid")
    assert read_sounding_notes(smf(track()), name="a.mid") == Notes.empty()


def test_the_prompts_pedal_holds_nothing_that_is_new() -> None:
    content = midi_bytes(Notes.of([0.0, 1.0], [0.5, 0.5], [60, 62], [64, 64], [(0.75, 50.0)]))
    new = Notes.of([2.0, 3.0, 3.0], [0.25, 0.25, 0.5], [62, 64, 66], [64] * 3)
    sounding = read_sounding_notes(read_prompt(content).append_track(new), name="a.mid")
    np.testing.assert_allclose(sounding.duration, [0.5, 1.0, 0.25, 0.25, 0.5])


def test_a_pedal_that_the_model_writes_holds_both() -> None:
    content = midi_bytes(Notes.of([0.0, 1.0], [0.5, 0.5], [60, 62], [64, 64], [(0.25, 50.0)]))
    prompt = read_prompt(content, open_pedal=True)
    new = Notes.of([2.0, 4.0], [0.25, 0.25], [65, 66], [64] * 2, [(1.0, 3.0)])
    sounding = read_sounding_notes(prompt.append_track(new), name="a.mid")
    np.testing.assert_allclose(sounding.onset + sounding.duration, [3.0, 3.0, 3.0, 4.25])
