"""Events round-trip through bytes; ticks convert to seconds and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_builder import note, pedal, smf, tempo, track

from coma_gen.midi.notes import Notes
from coma_gen.midi.smf import read_stream
from coma_gen.midi.smf_writer import note_events, track_chunk
from coma_gen.midi.tempo_map import TempoMap

channel_message = st.builds(
    lambda kind, channel, one, two: bytes((kind | channel, one, two)),
    st.sampled_from((0x80, 0x90, 0xA0, 0xB0, 0xE0)),
    st.integers(0, 15),
    st.integers(0, 127),
    st.integers(0, 127),
)
short_message = st.builds(
    lambda kind, channel, one: bytes((kind | channel, one)),
    st.sampled_from((0xC0, 0xD0)),
    st.integers(0, 15),
    st.integers(0, 127),
)
text = st.builds(lambda words: b"\xff\x01" + bytes((len(words),)) + words, st.binary(max_size=100))
sysex = st.builds(lambda words: b"\xf0" + bytes((len(words),)) + words, st.binary(max_size=20))
event = st.tuples(st.integers(0, 300_000), st.one_of(channel_message, short_message, text, sysex))


def walked(content: bytes) -> list[tuple[int, bytes]]:
    return [(row.tick, row.event) for row in read_stream(content, name="a.mid").rows]


def chunk(body: bytes) -> bytes:
    return smf(b"MTrk" + len(body).to_bytes(4, "big") + body)


@settings(max_examples=60)
@given(st.lists(event, max_size=30))
def test_events_come_back_as_they_were(events: list[tuple[int, bytes]]) -> None:
    events.sort(key=lambda each: each[0])
    assert walked(smf(track_chunk(events))) == events


def test_running_status_is_written_out_and_what_follows_the_end_is_not_read() -> None:
    body = b"\x00\x90\x3c\x40\x05\x3e\x40\x81\x00\xc0\x07"
    events = [(0, b"\x90\x3c\x40"), (5, b"\x90\x3e\x40"), (133, b"\xc0\x07")]
    assert walked(chunk(body)) == events
    assert walked(chunk(body + b"\x00\xff\x2f\x00\x00\x90\x3c\x40")) == events


def test_at_one_tick_notes_end_the_pedal_moves_and_notes_begin() -> None:
    notes = Notes.of([0.0, 1.0], [1.0, 0.0], [60, 60], [64, 65], [(0.0, 1.0), (1.0, 2.0)])
    events = note_events(notes, lambda seconds: np.rint(seconds * 10).astype(np.int64), channel=3)
    assert events == [
        (0, b"\xb3\x40\x7f"),
        (0, b"\x93\x3c\x40"),
        (10, b"\x83\x3c\x00"),
        (10, b"\xb3\x40\x00"),
        (10, b"\xb3\x40\x7f"),
        (10, b"\x93\x3c\x41"),
        (11, b"\x83\x3c\x00"),
        (20, b"\xb3\x40\x00"),
    ]


tempi = st.lists(st.tuples(st.integers(0, 100_000), st.integers(20_000, 3_000_000)), max_size=8)


@settings(max_examples=100)
@given(tempi, st.integers(24, 3000), st.lists(st.integers(0, 200_000), min_size=1, max_size=20))
def test_ticks_to_seconds_and_back(changes: list[tuple[int, int]], resolution: int, ticks: list[int]) -> None:
    changes.sort(key=lambda change: change[0])
    clock = TempoMap.of(*np.array(changes or np.zeros((0, 2), int)).T, resolution=resolution)
    wanted = np.array(ticks)
    np.testing.assert_array_equal(clock.nearest_tick(clock.seconds(wanted)), wanted)
    by_hand, tempo_now, last = 0.0, 500_000, 0
    for tick, value in [*changes, (200_000, 1)]:
        by_hand += (tick - last) * tempo_now / resolution / 1e6
        assert clock.seconds(tick) == pytest.approx(by_hand, rel=1e-12)
        tempo_now, last = value, tick


def test_the_longest_tick_from_a_time_on() -> None:
    clock = TempoMap.of([100, 200], [1_000_000, 250_000], resolution=100)
    assert [clock.tick_seconds(tick) for tick in (0, 100, 199, 200)] == [0.01, 0.01, 0.01, 0.0025]


@pytest.mark.parametrize(("ticks", "tempo_"), [([0], [0]), ([5, 3], [1, 1])])
def test_impossible_tempi_are_refused(ticks: list[int], tempo_: list[int]) -> None:
    with pytest.raises(ValueError, match="tempi"):
        TempoMap.of(ticks, tempo_, resolution=480)


def test_the_walk_merges_the_tracks() -> None:
    content = smf(track(tempo(0, 400_000)), track(pedal(3, 127), *note(0, 9)))
    rows = read_stream(content, name="a.mid").rows
    assert [(row.tick, row.track) for row in rows] == [(0, 0), (0, 1), (3, 1), (9, 1)]
