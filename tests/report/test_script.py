"""The report's script without a browser: its arithmetic, and the elements it requires on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_mini_racer import MiniRacer

from coma_gen.midi.notes import Notes
from coma_gen.report.content import ReportContent
from coma_gen.report.layout import WIDTH, RollLayout, compute_layout
from coma_gen.report.page import SCRIPT, build_report

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """Calls a function of the script, on an empty page, with plain values."""
    engine = MiniRacer()
    engine.eval("const document = { querySelectorAll: () => [] };")
    engine.eval(SCRIPT.read_text(encoding="utf-8"))

    def run(name: str, *arguments: Any) -> Any:
        told = engine.eval(f"JSON.stringify({name}({', '.join(map(json.dumps, arguments))}))")
        return json.loads(str(told))

    yield run
    engine.close()


def layout(seconds: float) -> RollLayout:
    return compute_layout(Notes.of([0.0], [seconds], [60], [64]), heading=False)


lengths = st.floats(1.0, 2000.0)
shares = st.floats(0.0, 1.0)


@given(length=lengths, share=shares)
def test_the_playhead_stands_where_the_picture_has_the_note(call: Call, length: float, share: float) -> None:
    roll, seconds = layout(length), length * share
    point = call("positionOf", roll.shares(), seconds)
    line = roll.system_of(seconds)
    assert point["line"] == line
    assert point["x"] * WIDTH == pytest.approx(roll.x(seconds, line), abs=0.01)
    assert point["y"] * roll.height == pytest.approx(roll.top(line))


@given(length=lengths, share=shares, down=st.floats(0.01, 0.99))
def test_a_point_leads_to_the_time_that_is_shown_there(
    call: Call, length: float, share: float, down: float
) -> None:
    roll, seconds = layout(length), length * share
    point = call("positionOf", roll.shares(), seconds)
    y = point["y"] + down * roll.shares()["step"]
    assert call("secondsAt", roll.shares(), point["x"], y) == pytest.approx(seconds, abs=1e-6)


@given(length=lengths, x=st.floats(-1.0, 2.0), y=st.floats(-1.0, 2.0))
def test_every_point_leads_into_the_picture(call: Call, length: float, x: float, y: float) -> None:
    roll = layout(length)
    assert 0 <= call("secondsAt", roll.shares(), x, y) <= roll.systems * roll.system_seconds + 1e-9


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (9.99, "0:09"), (60, "1:00"), (71.2, "1:11"), (3601, "60:01")]
)
def test_the_clock(call: Call, seconds: float, text: str) -> None:
    assert call("clock", seconds) == text


@pytest.mark.parametrize(
    ("key", "at", "then"),
    [
        ("ArrowLeft", 5, 4),
        ("ArrowRight", 5, 6),
        ("ArrowDown", 0.5, 0),
        ("ArrowUp", 29.5, 30),
        ("PageUp", 5, 15),
        ("PageDown", 5, 0),
        ("Home", 5, 0),
        ("End", 5, 30),
        ("a", 5, None),
        ("Tab", 5, None),
        ("constructor", 5, None),
    ],
)
def test_keys(call: Call, key: str, at: float, then: float | None) -> None:
    assert call("seekByKey", key, at, 30) == then


class Elements(HTMLParser):
    """Collects the names that elements of a page can be found by: `name`, `.class`, `#id`, `data-...`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.names |= {tag, *values} | {f".{name}" for name in (values.get("class") or "").split()}
        self.names.add(f"#{values.get('id')}")

    handle_startendtag = handle_starttag


def test_the_page_has_all_that_the_script_asks_for(tmp_path: Path, content: ReportContent) -> None:
    build_report(tmp_path / "report", content=content)
    present = Elements((tmp_path / "report" / "index.html").read_text(encoding="utf-8")).names
    text = SCRIPT.read_text(encoding="utf-8")
    selectors = re.findall(r'(?:querySelectorAll|part)\("([^"]+)"\)', text)
    selectors += re.findall(r'"([^"]+)"', re.findall(r"\[([^]]*)\]\.map\(part\)", text)[0])
    asked = {*" ".join(selectors).split(), *(f"data-{name}" for name in re.findall(r"dataset\.(\w+)", text))}
    assert {".card", "#how", ".playhead", "audio", ".word", "data-roll"} <= asked
    assert asked - present == set()


def test_the_script_asks_for_nothing_outside_and_makes_no_markup() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    words = (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "fetch",
        "XMLHttp",
        "import",
    )
    assert [word for word in (*words, "http", "</script", "<!--", "localStorage") if word in text] == []
