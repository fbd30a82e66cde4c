"""A prompt's events are kept as written for any kind of file, and new notes are placed at their seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import symusic
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_builder import Event, note, pedal, program, smf, tempo, track

from coma_gen.core.errors import UserError
from coma_gen.midi.io import read_notes, read_song
from coma_gen.midi.notes import Notes
from coma_gen.midi.prompt import Prompt, read_prompt
from coma_gen.midi.sustain import apply_sustain

NEW = Notes.of([0.25, 1.0, 1.5], [0.5, 0.5, 1.0], [60, 64, 60], [70, 80, 90])
DRUMS = 9


def signature(tick: int, beats: int, power: int) -> Event:
    return tick, bytes((0xFF, 0x58, 4, beats, power, 24, 8))


def named(name: str) -> Event:
    return 0, b"\xff\x03" + bytes((len(name),)) + name.encode()


def control(tick: int, number: int, value: int, channel: int = 0) -> Event:
    return tick, bytes((0xB0 + channel, number, value))


def played(score: Any, *, drums: bool = False) -> list[tuple[int, int, int, int]]:
    """Start, length, pitch and velocity in ticks, as an independent reader has them."""
    tracks = [each for each in score.tracks if each.is_drum == drums]
    return sorted((n.time, n.duration, n.pitch, n.velocity) for each in tracks for n in each.notes)


def parsed(content: bytes) -> Any:
    return symusic.Score.from_midi(content)


def behind(prompt: Prompt, new: Notes = NEW) -> Notes:
    return new.shifted(prompt.notes.end_of_onsets)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Files of both formats with anything that people's files have."""
    division = draw(st.sampled_from((24, 96, 120, 384, 480, 960)))
    tracks = []
    for _ in range(draw(st.integers(1, 3))):
        events: list[Event] = []
        for _ in range(draw(st.integers(0, 8))):
            start, length = draw(st.integers(0, 4_000)), draw(st.integers(0, 900))
            channel, key = draw(st.sampled_from((0, 1, 5, DRUMS))), draw(st.integers(58, 63))
            events += note(start, start + length, key, draw(st.integers(1, 127)), channel)
        for _ in range(draw(st.integers(0, 4))):
            tick, channel = draw(st.integers(0, 5_000)), draw(st.sampled_from((0, 1, 5)))
            events.append(
                draw(
                    st.sampled_from(
                        (
                            pedal(tick, draw(st.integers(0, 127)), channel),
                            program(tick, draw(st.integers(0, 127)), channel),
                            control(tick, 7, draw(st.integers(0, 127)), channel),
                            tempo(tick, draw(st.integers(200_000, 1_500_000))),
                            signature(tick, draw(st.integers(1, 7)), draw(st.integers(1, 3))),
                        )
                    )
                )
            )
        tracks.append(track(*events))
    return smf(*tracks, division=division, form=int(len(tracks) > 1 or draw(st.booleans())))


@settings(max_examples=60)
@given(files(), st.booleans())
def test_what_was_played_is_untouched_and_what_is_new_stands_at_its_seconds(
    content: bytes, open_pedal: bool
) -> None:
    before = parsed(content)
    try:
        prompt = read_prompt(content, name="a.mid", open_pedal=open_pedal)
    except UserError as error:
        assert not played(before) and "notes that are not drums" in str(error)
        return
    new = behind(prompt)
    written = prompt.append_track(new)
    after = parsed(written)
    factor = after.ticks_per_quarter // before.ticks_per_quarter
    assert after.ticks_per_quarter == factor * before.ticks_per_quarter
    kit = [(start * factor, length * factor, *rest) for start, length, *rest in played(before, drums=True)]
    assert played(after, drums=True) == sorted(kit)
    assert prompt.drum_notes == len(played(before, drums=True))
    mine = [each for each in after.tracks if each.name == "Continuation"]
    assert [(n.pitch, n.velocity) for n in mine[0].notes] == [(60, 70), (64, 80), (60, 90)]
    ours = played(after)
    for each in played(parsed(_only(mine, after))):
        ours.remove(each)
    expected = [(start * factor, length * factor, *rest) for start, length, *rest in played(before)]
    assert ours == sorted(expected)
    _same_times(prompt, content, written, new)


def _only(tracks: list[Any], score: Any) -> bytes:
    alone = symusic.Score(score.ticks_per_quarter)
    alone.tracks.extend(tracks)
    return bytes(alone.dumps_midi())


def _same_times(prompt: Prompt, content: bytes, written: bytes, new: Notes) -> None:
    """In seconds, too: the tempo map is the file's as long as the prompt sounds."""
    file, whole = read_notes(content), read_notes(written)
    assert prompt.notes.onset.tolist() == file.onset.tolist()
    np.testing.assert_allclose(prompt.notes.duration, file.duration, atol=1e-9)
    late = whole.onset > prompt.notes.end_of_onsets + 0.1
    np.testing.assert_allclose(whole.onset[late], new.onset, atol=0.0021)
    np.testing.assert_allclose(whole.duration[late], new.duration, atol=0.0042)


@settings(max_examples=50)
@given(files(), st.floats(0, 4), st.floats(0.1, 4))
def test_a_passage_is_that_passage_of_the_whole(content: bytes, start: float, seconds: float) -> None:
    whole = read_notes(content)
    later = whole.onset[whole.onset >= start]
    if not len(later):
        with pytest.raises(UserError, match="must have"):
            read_prompt(content, from_second=start, seconds=seconds)
        return
    prompt = read_prompt(content, from_second=start, seconds=seconds)
    expected = whole.between(later[0], later[0] + seconds)
    moved = expected.onset[0] - prompt.notes.onset[0]
    assert moved >= -1e-9
    np.testing.assert_allclose(prompt.notes.onset + moved, expected.onset, atol=1e-9)
    np.testing.assert_allclose(prompt.notes.duration, expected.duration, atol=1e-9)
    assert prompt.notes.pitch.tolist() == expected.pitch.tolist()
    assert len(read_notes(prompt.append_track(behind(prompt)))) == len(expected) + len(NEW)


def test_what_the_last_notes_sound_like_does_not_depend_on_the_cut() -> None:
    """The pedal that catches them, too, is pressed after they were struck."""
    events = [
        *note(0, 480),
        *note(480, 960, 64),
        pedal(600, 127),
        pedal(1900, 0),
        *note(2000, 2100),
        pedal(2050, 127),
    ]
    content = smf(track(*events))
    prompt = read_prompt(content, seconds=0.75)
    sounding, whole = apply_sustain(prompt.notes), apply_sustain(read_notes(content))
    assert sounding.onset.tolist() == [0.0, 0.5]
    assert sounding.duration.tolist() == whole.duration[:2].tolist() == [0.5, 1900 / 960 - 0.5]


def test_a_pedal_that_nothing_lifts_rises_with_the_last_key() -> None:
    content = smf(track(pedal(0, 127), *note(0, 480), *note(480, 960, 64)))
    prompt = read_prompt(content)
    assert prompt.held == ()
    assert prompt.notes.pedal.tolist() == [[0.0, 1.0]]
    assert read_notes(prompt.append_track(behind(prompt))).pedal.tolist() == [[0.0, 1.0]]


def test_an_open_pedal_is_lifted_by_what_follows_on_the_prompts_channel_too() -> None:
    events = [pedal(0, 127, 2), *note(0, 480, channel=2), *note(480, 960, 64, channel=2), pedal(1900, 0, 2)]
    prompt = read_prompt(smf(track(*events)), open_pedal=True)
    assert prompt.held == (2,)
    new = Notes.of([1.0], [0.5], [70], [64], [(0.5, 1.25), (1.5, 2.0)])
    rows = read_song(prompt.append_track(new), name="a.mid").stream.rows
    moves = {(row.tick, row.channel, row.event[2]) for row in rows if row.kind == 0xB0 and row.event[1] == 64}
    assert moves == {(0, 2, 127), (1200, 2, 0), (480, 0, 127), (1200, 0, 0), (1440, 0, 127), (1920, 0, 0)}
    without = prompt.append_track(Notes.of([1.0], [0.5], [70], [64]))
    assert read_notes(without).pedal.tolist() == [[0.0, 0.5]]


def test_a_cut_at_the_beginning_starts_at_the_bar_line_with_what_held_there() -> None:
    head = [
        named("Lead"),
        signature(0, 3, 2),
        tempo(0, 400_000),
        tempo(700, 600_000),
        program(0, 5),
        program(10, 40),
        control(0, 7, 90),
        control(20, 7, 100),
        control(5, 101, 0),
        control(5, 100, 0),
        control(5, 6, 12),
        (30, b"\xff\x05\x02la"),
        *note(0, 480),
        pedal(100, 127),
        pedal(200, 0),
    ]
    content = smf(track(*head, *note(3100, 3300, 64), *note(3400, 3500, 65)))
    prompt = read_prompt(content, from_second=2.0)
    score = parsed(prompt.content)
    assert [(n.time, n.pitch) for n in score.tracks[0].notes] == [(3100 - 2880, 64), (3400 - 2880, 65)]
    assert [(each.time, each.mspq) for each in score.tempos] == [(0, 600_000)]
    assert [(s.time, s.numerator, s.denominator) for s in score.time_signatures] == [(0, 3, 4)]
    assert (score.tracks[0].name, score.tracks[0].program) == ("Lead", 40)
    assert len(score.tracks[0].lyrics) == 0
    found = [(c.time, c.number, c.value) for c in score.tracks[0].controls]
    assert sorted(found) == [(0, 6, 12), (0, 7, 100), (0, 64, 0), (0, 100, 0), (0, 101, 0)]


def test_a_coarse_resolution_becomes_a_whole_number_of_times_as_fine() -> None:
    content = smf(track(tempo(0, 1_000_000), *note(0, 4), *note(6, 7, 64)), division=4)
    prompt = read_prompt(content)
    score = parsed(prompt.content)
    assert score.ticks_per_quarter == 4 * 63
    assert played(score) == [(0, 4 * 63, 60, 64), (6 * 63, 63, 64, 64)]
    new = read_notes(prompt.append_track(Notes.of([1.777], [0.3], [70], [64])))
    assert new.onset[-1] == pytest.approx(1.777, abs=0.002)


@pytest.mark.parametrize(
    ("events", "sent"),
    [
        ([*note(0, 9)], [(0, b"\xc1\x00")]),
        ([program(0, 19), *note(0, 9)], [(0, b"\xc1\x13")]),
        ([program(0, 19), *note(0, 9), program(5, 40, 3), *note(5, 9, channel=3)], [(0, b"\xc1\x00")]),
        (
            [
                program(0, 4),
                control(0, 0, 1),
                control(0, 7, 90),
                control(3, 7, 80),
                control(0, 91, 9),
                *note(0, 9),
            ],
            [(0, b"\xb1\x00\x01"), (0, b"\xc1\x04"), (0, b"\xb1\x07\x50"), (0, b"\xb1\x5b\x09")],
        ),
    ],
    ids=["nothing said", "one program", "two programs", "one channel's levels"],
)
def test_the_continuation_sounds_as_the_prompt_where_that_is_of_one_mind(
    events: list[Event], sent: list[tuple[int, bytes]]
) -> None:
    assert list(read_prompt(smf(track(*events))).setup) == sent


def test_where_every_channel_is_taken_the_longest_unused_is_shared() -> None:
    events = [
        each for c in range(16) for each in note(10 * ((c * 7) % 16), 10 * ((c * 7) % 16) + 5, channel=c)
    ]
    prompt = read_prompt(smf(track(*events)))
    assert prompt.channel == 0
    assert prompt.setup[0][0] == 140


def test_all_that_a_file_has_stays_but_notes_without_an_end() -> None:
    """Drums (also those that nothing ends), texts, meters and tempi, and tracks without a note."""
    hanging = (100, b"\x90\x50\x40")
    one_shot = (240, bytes((0x99, 42, 50)))
    kit = track(named("Kit"), program(0, 8, DRUMS), *note(0, 9, 36, channel=DRUMS), one_shot)
    words = track(named("Words"), (10, b"\xff\x05\x02la"), (470, b"\xff\x01\x03end"))
    hands = [named("Hands"), tempo(0, 400_000), tempo(200, 700_000), signature(0, 3, 2)]
    prompt = read_prompt(smf(track(*hands, *note(0, 480), hanging), kit, words))
    score = parsed(prompt.append_track(behind(prompt)))
    assert [each.name for each in score.tracks if each.notes] == ["Hands", "Kit", "Continuation"]
    assert (len(prompt.notes), prompt.drum_notes, prompt.endless_notes) == (1, 2, 1)
    assert b"\x90\x50" not in prompt.content and one_shot[1][1:] in prompt.content
    assert [(each.time, each.mspq) for each in score.tempos] == [(0, 400_000), (200, 700_000)]
    assert [(s.time, s.numerator, s.denominator) for s in score.time_signatures] == [(0, 3, 4)]
    for text in (b"\xff\x05\x02la", b"\xff\x01\x03end", b"Words"):
        assert text in prompt.content
    assert (prompt.channel, prompt.setup) == (1, ((0, b"\xc1\x00"),))


def test_a_time_of_the_file_to_go_on_from() -> None:
    """What begins before it is the prompt, with drums; what comes later in the file is gone."""
    kit = [each for tick in range(0, 1920, 240) for each in note(tick, tick + 60, 36, channel=DRUMS)]
    lead = [each for k in range(4) for each in note(480 * k, 480 * k + 470, 60 + k)]
    content = smf(track(*lead, tempo(1500, 900_000)), track(*kit))
    prompt = read_prompt(content, until_second=1.0)
    assert prompt.notes.onset.tolist() == [0.0, 0.5] and prompt.drum_notes == 4
    score = parsed(prompt.content)
    assert [each.time for each in score.tempos] in ([], [0])
    assert [n.time for n in score.tracks[1].notes] == [0, 240, 480, 720]
    part = read_prompt(content, from_second=0.5, until_second=1.5)
    assert part.notes.pitch.tolist() == [61, 62]
    with pytest.raises(UserError, match=r"a\.mid: must have a note before second 0\.2, got its first note"):
        read_prompt(content, name="a.mid", from_second=0.1, until_second=0.2)


def test_the_new_notes_alone_begin_at_the_splice_with_its_tempo_and_meter() -> None:
    lead = [*note(0, 480), *note(1440, 1920, 64), signature(0, 3, 2), tempo(0, 400_000), tempo(960, 600_000)]
    prompt = read_prompt(smf(track(*lead, tempo(1500, 500_000)), track(*note(0, 9, 36, channel=DRUMS))))
    splice = prompt.notes.end_of_onsets
    content = prompt.encode_alone(behind(prompt), program=40)
    score = parsed(content)
    assert [(each.name, each.program) for each in score.tracks] == [("Continuation", 40)]
    assert [(each.time, each.mspq) for each in score.tempos] == [(0, 600_000), (60, 500_000)]
    assert [(s.time, s.numerator, s.denominator) for s in score.time_signatures] == [(0, 3, 4)]
    alone, whole = read_notes(content), read_notes(prompt.append_track(behind(prompt)))
    np.testing.assert_allclose(alone.onset, NEW.onset, atol=0.002)
    np.testing.assert_allclose(alone.onset + splice, whole.onset[-3:], atol=1e-9)
    assert alone.pitch.tolist() == [60, 64, 60]


def test_another_instrument_is_one_of_general_midis_own_bank() -> None:
    events = [control(0, 0, 8), control(0, 32, 3), program(0, 4), control(0, 7, 90), *note(0, 9)]
    prompt = read_prompt(smf(track(*events)))
    track_of_new = parsed(prompt.append_track(behind(prompt), program=73)).tracks[-1]
    assert track_of_new.program == 73
    found = [(each.number, each.value) for each in track_of_new.controls]
    assert found == [(0, 0), (32, 0), (7, 90)]
    assert parsed(prompt.append_track(behind(prompt))).tracks[-1].program == 4


@pytest.mark.slow
def test_a_file_of_as_many_tracks_as_there_may_be_has_no_room_for_one_more() -> None:
    filled = track((0, b"\xff\x01\x00"))
    content = smf(track(*note(0, 9)), *[filled] * 65_534)
    with pytest.raises(UserError, match="must have at most 65,534 tracks, got 65,535"):
        read_prompt(content)


def refused() -> Iterator[tuple[bytes, dict[str, float], str]]:
    yield smf(track()), {}, "must have notes that are not drums, got none"
    yield smf(track(*note(0, 9, channel=DRUMS))), {}, "got 1 of drums"
    yield smf(track(*note(0, 9))), {"from_second": 3.0}, "at or after second 3, got its last note at 0.00 s"
    yield b"text", {}, "begins with 'MThd'"


@pytest.mark.parametrize(("content", "cut", "words"), list(refused()))
def test_what_cannot_be_continued_is_refused_by_name(
    content: bytes, cut: dict[str, float], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_prompt(content, name="a.mid", **cut)
    assert str(caught.value).startswith("a.mid: ") and words in str(caught.value)


def test_ticks_that_are_too_short_for_what_is_new_are_refused() -> None:
    prompt = read_prompt(smf(track(tempo(0, 10), *note(0, 9)), division=30_000), name="a.mid")
    with pytest.raises(UserError, match=r"a\.mid: must reach its end within 268,435,455 ticks"):
        prompt.append_track(NEW)


def test_the_same_file_gives_the_same_bytes() -> None:
    content = smf(track(pedal(0, 127), *note(0, 480), program(3, 3)), track(*note(7, 480, channel=4)))
    one, other = (read_prompt(content).append_track(NEW) for _ in range(2))
    assert one == other
