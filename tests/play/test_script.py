"""The page's scripts without a browser: their arithmetic and file names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_mini_racer import MiniRacer

from coma_gen.play import app
from coma_gen.report.page import SCRIPT

Call = Callable[..., Any]
HERE = Path(app.__file__).parent
STUBS = """
const document = { querySelectorAll: () => [] };
const matchMedia = () => ({ addEventListener() {} });
class ResizeObserver {}
"""


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """Calls a function of the scripts with plain values."""
    engine = MiniRacer()
    engine.eval(STUBS)
    for script in (SCRIPT, HERE / "roll.js", HERE / "takes.js"):
        engine.eval(script.read_text(encoding="utf-8"))

    def run(name: str, *arguments: Any) -> Any:
        told = engine.eval(f"JSON.stringify({name}({', '.join(map(json.dumps, arguments))}))")
        return json.loads(str(told))

    yield run
    engine.close()


@given(
    seconds=st.floats(0.5, 20_000),
    width=st.integers(200, 2000),
    pitches=st.lists(st.integers(0, 127), max_size=5),
    share=st.floats(0, 1),
)
def test_a_press_leads_to_the_time_that_is_drawn_there(
    call: Call, seconds: float, width: int, pitches: list[int], share: float
) -> None:
    notes = [[0.0, 1.0, pitch, 64] for pitch in pitches]
    roll = call("layoutOf", {"notes": notes, "seconds": seconds}, width)
    pixels = roll["pixels"]
    assert 1 <= roll["lines"] <= 12 and roll["lines"] * roll["line_seconds"] >= seconds
    assert all(pixels["low"] <= pitch <= pixels["high"] for pitch in pitches)
    assert pixels["total"] <= 12 * (133 * 2 + 28) + 16 or roll["lines"] < 5
    second = share * seconds
    point = call("positionOf", roll, second)
    assert 0 < point["x"] < 1 and 0 < point["y"] < 1
    found = call("secondsAt", roll, point["x"], point["y"] + roll["height"] / 2)
    assert found == pytest.approx(second, abs=1e-6 * max(1.0, seconds))


@pytest.mark.parametrize(
    ("prompt", "number", "stem"),
    [
        ("song.mid", 2, "song-continued-02"),
        ("My Song.MIDI", 1, "My Song-continued-01"),
        ("song-continued-02.mid", 1, "song-continued-02-01"),
        ("song-continued-02-01.mid", 4, "song-continued-02-01-04"),
        ("", 3, "from-nothing-03"),
        ("from-nothing-03.mid", 1, "from-nothing-03-01"),
    ],
)
def test_files_are_named_by_what_they_continue(call: Call, prompt: str, number: int, stem: str) -> None:
    assert call("stemOf", prompt, number) == stem
