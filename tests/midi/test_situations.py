"""Ambiguous MIDI files: every reader of the project gives the same, intended result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pretty_midi
import pytest
from midi_builder import note, pedal, smf, tempo, track
from midi_situations import SITUATIONS, Situation, later, released, struck

from coma_gen.core.errors import UserError
from coma_gen.corpus.folder import write_folder
from coma_gen.corpus.read import read_all
from coma_gen.midi.io import read_notes, read_song
from coma_gen.midi.notes import Notes
from coma_gen.midi.playback import read_sounding_notes
from coma_gen.midi.prompt import read_prompt


def rows(notes: Notes) -> list[tuple[float, float, int]]:
    columns = (notes.onset.round(6).tolist(), notes.duration.round(6).tolist(), notes.pitch.tolist())
    return sorted(zip(*columns, strict=True))


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=list(SITUATIONS))
def test_each_is_read_as_it_is_meant(situation: Situation, tmp_path: Path) -> None:
    notes = read_notes(situation.content)
    assert rows(notes) == list(situation.notes)
    assert notes.pedal.tolist() == [list(each) for each in situation.pedal]
    assert read_song(situation.content, name="a.mid").drum_notes == situation.drums
    prompt = read_prompt(situation.content)
    assert (rows(prompt.notes), prompt.drum_notes) == (list(situation.notes), situation.drums)
    new = Notes.of([9.0], [1.0], [72], [64])
    assert rows(read_notes(prompt.append_track(new))) == [*situation.notes, (9.0, 1.0, 72)]
    sounding = read_sounding_notes(situation.content, name="a.mid")
    assert [each[::2] for each in rows(sounding)] == [each[::2] for each in situation.notes]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.mid").write_bytes(situation.content)
    (row,) = write_folder(tmp_path / "own", tmp_path / "corpus").performances
    assert row.duration == pytest.approx(max(start + length for start, length, _ in situation.notes))
    (reading,) = read_all([tmp_path / "corpus" / "a.mid"])
    assert (reading.notes, reading.reason) == (len(situation.notes), "")


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=list(SITUATIONS))
def test_a_part_of_each_is_a_part_of_what_is_meant(situation: Situation) -> None:
    for start, length, _ in situation.notes:
        expected = read_notes(situation.content)
        expected = expected.between(start - 1e-9, start + 0.05)
        prompt = read_prompt(situation.content, from_second=max(0.0, start - 1e-9), seconds=0.05)
        np.testing.assert_allclose(prompt.notes.duration, expected.duration, atol=1e-9)
        assert prompt.notes.pitch.tolist() == expected.pitch.tolist() and length >= 0


def test_notes_shorter_than_a_tick_as_pretty_midi_writes_them(tmp_path: Path) -> None:
    music = pretty_midi.PrettyMIDI(resolution=220)
    piano = pretty_midi.Instrument(0)
    times = [(0.5, 0.5004), (1.0, 1.25), (1.5, 1.5002), (2.0, 2.0003), (3.0, 3.5)]
    piano.notes = [pretty_midi.Note(80, 60, start, end) for start, end in times]
    music.instruments.append(piano)
    music.write(str(tmp_path / "short.mid"))
    notes = read_notes(tmp_path / "short.mid")
    np.testing.assert_allclose(notes.onset, [start for start, _ in times], atol=0.002)
    np.testing.assert_allclose(notes.duration, [end - start for start, end in times], atol=0.002)


def test_a_release_for_safety_before_each_note_is_not_its_end() -> None:
    events = [released(0), struck(0), released(96), released(480), struck(480), released(576)]
    assert rows(read_notes(smf(track(*events)))) == [(0, 0.1, 60), (0.5, 0.1, 60)]


def test_repeated_notes_keep_their_ends_where_the_last_has_none() -> None:
    """At one tick the new note may be written before the release of the old."""
    events = [struck(0), struck(96), released(96), struck(192), released(192), struck(288), released(288)]
    song = read_song(smf(track(*events)), name="a.mid")
    assert (song.endless_notes, song.borrowed_ends) == (1, 0)
    assert rows(read_notes(smf(track(*events)))) == [(0, 0.1, 60), (0.1, 0.1, 60), (0.2, 0.1, 60)]


def test_a_reset_behind_the_splice_does_not_lift_an_open_pedal() -> None:
    events = [pedal(0, 127), *note(0, 960), (480, b"\xb0\x79\x00"), *note(240, 300, 64)]
    prompt = read_prompt(smf(track(*events)), open_pedal=True)
    assert prompt.held == (0,)
    assert read_notes(prompt.append_track(Notes.of([1.5], [0.5], [70], [64]))).pedal.tolist() == [[0.0, 0.25]]
    new = Notes.of([1.5], [0.5], [70], [64], [(0.25, 3.0)])
    assert read_notes(prompt.append_track(new)).pedal.tolist() == [[0.0, 3.0]]


def test_a_cut_at_the_beginning_sets_nothing_that_was_reset() -> None:
    head = [
        pedal(0, 127),
        (0, b"\xb0\x0b\x00"),
        (0, b"\xb0\x07\x50"),
        (0, b"\xe0\x00\x00"),
        (9, b"\xb0\x79\x00"),
    ]
    prompt = read_prompt(smf(track(*head, *later(30, 35))), from_second=3.0)
    sent = {row.event for row in read_song(prompt.content, name="a.mid").stream.rows if row.tick == 0}
    assert b"\xb0\x07\x50" in sent and not sent & {b"\xb0\x40\x7f", b"\xb0\x0b\x00", b"\xe0\x00\x00"}
    assert len(prompt.notes.pedal) == 0


def test_the_pedal_of_another_port_is_lifted_there() -> None:
    events = [(0, b"\xff\x21\x01\x02"), pedal(0, 127), *note(0, 480), *note(480, 960)]
    prompt = read_prompt(smf(track(*events)), open_pedal=True)
    assert prompt.held == (32,)
    whole = read_song(prompt.append_track(Notes.of([1.5], [0.5], [70], [64])), name="a.mid")
    assert {voice: ticks.tolist() for voice, ticks in whole.sustain_intervals(9999).items()} == {
        32: [[0, 480]]
    }
    assert whole.ports == [0, 2]


def test_new_notes_are_on_no_channel_that_a_file_makes_rhythm() -> None:
    kit = [(0, b"\xf0\x0a\x41\x10\x42\x12\x40\x12\x15\x01\x10\xf7")]  # part 2 is channel 2
    prompt = read_prompt(smf(track(*kit, *later(0))))
    assert prompt.channel == 2 and rows(prompt.notes) == [(0, 0.1, 60)]


def test_a_bank_that_no_program_has_taken_makes_no_drums_of_what_is_new() -> None:
    prompt = read_prompt(smf(track((0, b"\xb0\x00\x7f"), *later(0))))
    assert rows(prompt.notes) == [(0, 0.1, 60)]
    new = Notes.of([1.0], [0.5], [72], [64])
    assert rows(read_notes(prompt.append_track(new))) == [(0, 0.1, 60), (1.0, 0.5, 72)]


def raw(body: bytes) -> bytes:
    return smf(b"MTrk" + len(body).to_bytes(4, "big") + body)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (raw(b"\x00\x90\x3c\xc8"), "a data byte of 200, above 127 (track 1, byte 25)"),
        (smf(track(), track((0, b"\xb0\x40\xff"))), "a data byte of 255, above 127 (track 2, byte 37)"),
        (smf(track((0, b"\xff\x51\x02\x07\xa1"))), "a tempo of 2 bytes instead of 3 (track 1, byte 23)"),
        (smf(track((0, b"\xff\x51\x00"))), "a tempo of 0 bytes instead of 3"),
        (raw(b"\x00\x3c\x40"), "data without a status (track 1, byte 23)"),
        (raw(b"\x00\x90\x3c"), "an event that is cut off (track 1, byte 25)"),
        (b"MThd\x00\x00\x00\x06\x00", "a header that is cut off after 9 of 14 bytes"),
        (b"MThd\x00\x00\x00\x02" + bytes(6), "a header of 2 bytes"),
        (smf(track(tempo(0, 0))), "tempi above 0, got a tempo of 0"),
    ],
)
def test_damage_is_named_by_its_byte(content: bytes, words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_notes(content, name="a.mid")
    assert words in str(caught.value) and str(caught.value).startswith("a.mid: ")
