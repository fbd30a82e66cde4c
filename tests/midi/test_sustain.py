"""The sustain pedal as longer notes, against hand-computed lengths and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.midi.notes import Notes
from coma_gen.midi.sustain import apply_sustain


@pytest.mark.parametrize(
    ("notes", "pedal", "ends"),
    [
        ([(0, 1, 60)], [(0.5, 3)], [3]),  # held to the release
        ([(0, 1, 60)], [(2, 3)], [1]),  # the pedal comes too late
        ([(0, 1, 60)], [(1, 3)], [1]),  # and even at the same time
        ([(0, 3, 60)], [(0, 3)], [3]),  # released together
        ([(0, 4, 60)], [(0, 3)], [4]),  # fingers outlast the foot
        ([(0, 1, 60), (2, 1, 60)], [(0, 5)], [2, 5]),  # struck again
        ([(0, 1, 60), (2, 1, 61)], [(0, 5)], [5, 5]),  # another key does not matter
        ([(0, 3, 60), (2, 1, 60)], [(0, 5)], [3, 5]),  # an overlap as played is kept
        ([(0, 1, 60), (0, 2, 60)], [(0, 5)], [5, 5]),  # struck together
        ([(0, 1, 60)], [(0, 1), (1, 2)], [1]),  # the foot lets go at that time
        ([(0, 1, 60)], [], [1]),
        ([], [(0, 1)], []),
    ],
)
def test_extend(
    notes: list[tuple[float, float, int]], pedal: list[tuple[float, float]], ends: list[float]
) -> None:
    onset, duration, pitch = np.array(notes or np.zeros((0, 3))).reshape(-1, 3).T
    extended = apply_sustain(Notes.of(onset, duration, pitch, np.full(len(notes), 64), pedal))
    assert (extended.onset + extended.duration).tolist() == ends
    assert len(extended.pedal) == 0


times = st.integers(0, 40).map(lambda eighth: eighth / 8)


@settings(max_examples=80)
@given(
    st.lists(st.tuples(times, times, st.integers(60, 62)), max_size=15),
    st.lists(times, max_size=8, unique=True).map(sorted),
)
def test_extend_equals_the_plain_loop(rows: list[tuple[float, float, int]], bounds: list[float]) -> None:
    pedal = list(zip(bounds[::2], bounds[1::2], strict=False))
    onset, duration, pitch = np.array(rows or np.zeros((0, 3))).reshape(-1, 3).T
    expected = []
    for start, length, key in rows:
        end = start + length
        held = max([up for down, up in pedal if down < end < up], default=end)
        struck = min([other for other, _, same in rows if same == key and other > start], default=np.inf)
        expected.append((start, key, max(end, min(held, struck)) - start))
    extended = apply_sustain(Notes.of(onset, duration, pitch, np.full(len(rows), 64), pedal))
    found = zip(extended.onset, extended.pitch.tolist(), extended.duration, strict=True)
    assert sorted(found) == sorted(expected)
