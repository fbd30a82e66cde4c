"""Reading and writing MIDI: the tempo map against hand-computed times, errors, and exact round trips."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import symusic
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_builder import note, pedal, program, smf, tempo, track

from coma_gen.core.errors import UserError
from coma_gen.midi import io as midi
from coma_gen.midi.io import TICKS_PER_SECOND, midi_bytes, read_notes
from coma_gen.midi.notes import Notes


def test_without_a_tempo_a_quarter_is_half_a_second() -> None:
    notes = read_notes(smf(track(*note(480, 960))))
    assert (notes.onset.tolist(), notes.duration.tolist()) == ([0.5], [0.5])
    assert (notes.pitch.tolist(), notes.velocity.tolist()) == ([60], [64])


def test_the_tempo_map_is_applied_exactly() -> None:
    # 1 quarter at 500,000 us, 2 at 1,000,000, then 250,000: the note runs from 1.5 s to 2.75 s
    tempi = track(tempo(480, 1_000_000), tempo(1440, 250_000))
    notes = read_notes(smf(tempi, track(*note(960, 1920))))
    assert notes.onset.tolist() == [1.5]
    assert notes.duration.tolist() == [1.0 + 0.25]


def test_the_later_of_two_tempi_at_one_tick_holds() -> None:
    assert read_notes(smf(track(tempo(0, 1), tempo(0, 1_000_000), *note(480, 960)))).onset.tolist() == [1.0]


def test_late_times_are_float64() -> None:
    start = 480 * 2 * 3600 * 3 + 1  # three hours and a tick
    assert read_notes(smf(track(*note(start, start + 1)))).onset.tolist() == [start / 960]


def test_tracks_and_channels_are_merged_and_drums_left_out() -> None:
    hands = track(*note(0, 480, 60)), track(*note(0, 480, 48, channel=3)), track(*note(0, 480, 35, channel=9))
    assert read_notes(smf(*hands)).pitch.tolist() == [48, 60]


def test_a_file_without_notes_is_silence() -> None:
    assert read_notes(smf(track())) == Notes.empty()


def test_the_pedal_is_down_from_64_and_an_unreleased_one_ends_with_the_piece() -> None:
    events = [
        pedal(0, 63),
        pedal(480, 64),
        pedal(500, 127),
        pedal(960, 63),
        pedal(1440, 90),
        *note(1450, 1920),
    ]
    assert read_notes(smf(track(*events))).pedal.tolist() == [[0.5, 1.0], [1.5, 2.0]]


def test_a_pedal_that_moves_within_a_tick_makes_two_intervals() -> None:
    events = [pedal(0, 127), pedal(480, 0), pedal(480, 127), pedal(960, 0), *note(240, 960)]
    assert read_notes(smf(track(*events))).pedal.tolist() == [[0, 0.5], [0.5, 1.0]]


def test_a_pedal_on_another_channel_than_the_notes_counts() -> None:
    # symusic leaves out the controls of a channel that has no notes
    both = track(pedal(0, 127, channel=1), pedal(480, 0, channel=1)), track(*note(0, 960))
    assert read_notes(smf(*both)).pedal.tolist() == [[0, 0.5]]


def test_a_pedal_that_rises_after_a_program_change_rises() -> None:
    events = [program(0, 1), pedal(0, 127), *note(0, 960), program(240, 2), pedal(480, 0)]
    assert read_notes(smf(track(*events))).pedal.tolist() == [[0, 0.5]]


def test_running_status_and_system_exclusive_are_followed() -> None:
    # the second and third control have no status byte of their own; a sysex stands between
    events = [(0, b"\xb0\x40\x7f"), (10, b"\x07\x64"), (480, b"\x40\x00"), (480, b"\xf0\x02\x01\xf7")]
    assert read_notes(smf(track(*events, *note(480, 960)))).pedal.tolist() == [[0, 0.5]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"X:1\nT:a tune in abc\nK:C\nCDEF", "begins with 'MThd'"),
        (b"MThd\x00\x00", "whole MIDI file, got a header that is cut off after 6 of 14 bytes"),
        (smf(track(*note(0, 1)), form=2), "format 2"),
        (smf(track(*note(0, 1)), division=0xE728), "SMPTE"),
        (smf(track(*note(0, 1)), division=0), "no resolution"),
        (smf(track(*note(0, 1)))[:-6], "whole MIDI file"),
        (smf(track((0, b"\x90\xc8\x40"), (9, b"\x80\xc8\x00"))), "whole MIDI file"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(content: bytes, words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_notes(content, name="a.mid")
    assert caught.value.faults[0].where == "a.mid"
    assert words in str(caught.value)


def test_a_missing_file_and_too_many_bytes_or_notes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_notes(tmp_path / "none.mid")
    path = tmp_path / "some.mid"
    path.write_bytes(smf(track(*note(0, 1), *note(1, 2))))
    assert len(read_notes(path)) == 2
    with monkeypatch.context() as patch:
        patch.setattr(midi, "MAX_SECONDS", 0.001)
        with pytest.raises(UserError, match=r"some\.mid: must last at most .* hours, got a later event"):
            read_notes(path)
    monkeypatch.setattr(midi, "MAX_NOTES", 1)
    with pytest.raises(UserError, match="at most 1 notes"):
        read_notes(path)
    monkeypatch.setattr(midi, "MAX_BYTES", 20)
    with pytest.raises(UserError, match=r"some\.mid: must have at most"):
        read_notes(path)


def test_what_is_written_is_one_piano_track_on_our_clock() -> None:
    content = midi_bytes(Notes.of([0.5], [1.0], [60], [64], [(0.25, 2.0)]))
    score = symusic.Score.from_midi(content)
    assert (content[8:14], score.ticks_per_quarter) == (struct.pack(">HHH", 0, 1, 1920), 1920)
    assert [(tempo_.time, tempo_.mspq) for tempo_ in score.tempos] == [(0, 500_000)]
    assert [(sign.numerator, sign.denominator) for sign in score.time_signatures] == [(4, 4)]
    assert [(piano.name, piano.program, piano.is_drum) for piano in score.tracks] == [("Piano", 0, False)]
    assert [(n.time, n.duration, n.pitch, n.velocity) for n in score.tracks[0].notes] == [
        (1920, 3840, 60, 64)
    ]
    assert [(c.time, c.number, c.value) for c in score.tracks[0].controls] == [(960, 64, 127), (7680, 64, 0)]


def test_a_note_lasts_a_tick_at_least_and_music_12_hours_at_most() -> None:
    assert read_notes(midi_bytes(Notes.of([1], [0], [60], [64]))).duration.tolist() == [1 / TICKS_PER_SECOND]
    with pytest.raises(ValueError, match="cannot be written"):
        midi_bytes(Notes.of([12 * 3600], [1], [60], [64]))


@pytest.mark.parametrize("resolution", [384, 480])
def test_maestros_resolutions_come_through_exactly(resolution: int) -> None:
    events = [event for i in range(200) for event in note(i * 7, i * 7 + 5, 21 + i % 88)]
    notes = read_notes(smf(track(*events), division=resolution))
    assert read_notes(midi_bytes(notes)) == notes


ticks = st.integers(0, 40_000)
a_note = st.tuples(ticks, st.integers(1, 9_000), st.integers(0, 127), st.integers(1, 127))


@st.composite
def music(draw: st.DrawFn) -> Notes:
    """Notes on the clock's ticks; of those that overlap at one pitch, the first to begin is the first to
    end."""
    rows = draw(st.lists(a_note, max_size=40))
    last_end: dict[int, int] = {}
    chosen = []
    for start, length, pitch, velocity in sorted(rows, key=lambda row: (row[0], row[2], row[1], row[3])):
        if start + length >= last_end.get(pitch, 0):
            last_end[pitch] = start + length
            chosen.append((start, length, pitch, velocity))
    bounds = sorted(draw(st.sets(ticks, max_size=12)))
    pedal_ = [(down, up) for down, up in zip(bounds[::2], bounds[1::2], strict=False)]
    second = 1 / TICKS_PER_SECOND
    onset, length_, pitch_, velocity_ = np.array(chosen or np.zeros((0, 4))).reshape(-1, 4).T
    return Notes.of(
        onset * second, length_ * second, pitch_, velocity_, np.array(pedal_).reshape(-1, 2) * second
    )


@settings(max_examples=80)
@given(music())
def test_the_round_trip_is_exact_to_the_tick_and_byte_stable(notes: Notes) -> None:
    content = midi_bytes(notes)
    back = read_notes(content)
    for name in ("onset", "duration", "pedal"):
        once, twice = getattr(notes, name), getattr(back, name)
        np.testing.assert_array_equal(np.rint(twice * TICKS_PER_SECOND), np.rint(once * TICKS_PER_SECOND))
    np.testing.assert_array_equal(back.pitch, notes.pitch)
    np.testing.assert_array_equal(back.velocity, notes.velocity)
    assert midi_bytes(back) == content


@settings(max_examples=50)
@given(st.lists(a_note, max_size=30))
def test_no_note_is_lost_however_they_overlap(rows: list[tuple[int, int, int, int]]) -> None:
    onset, length, pitch, velocity = np.array(rows or np.zeros((0, 4))).reshape(-1, 4).T
    second = 1 / TICKS_PER_SECOND
    notes = Notes.of(onset * second, length * second, pitch, velocity)
    back = read_notes(midi_bytes(notes))
    starts = np.rint(back.onset * TICKS_PER_SECOND)
    assert sorted(zip(starts, back.pitch, strict=True)) == sorted(zip(onset, pitch, strict=True))


@settings(max_examples=150)
@given(st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(data: st.DataObject) -> None:
    content = bytearray(
        smf(track(tempo(0, 400_000), pedal(0, 127), *note(0, 480), pedal(500, 0), *note(9, 700, 61)))
    )
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        notes = read_notes(bytes(content))
    except UserError:
        return
    assert notes.end <= midi.MAX_SECONDS
