"""The page next to generated pieces: it links the files beside it; players start before the splice."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from chromium import VARIABLE, browser, find_browser

from coma_gen.audio.synth import write_sound
from coma_gen.midi.notes import Notes
from coma_gen.report.layout import compute_layout
from coma_gen.report.piano_roll import write_roll
from coma_gen.report.pieces_page import PieceView, write_pieces_page

PROGRAM = find_browser()
COMMAND = "coma-gen generate 'a & b.mid' --seed 1"


@pytest.fixture
def folder(tmp_path: Path, etude: Callable[..., Notes]) -> Path:
    """A page of a piece with sound, whose name has signs of its own, and of one without a prompt."""
    notes = etude(12)
    views = []
    for stem, prompt_end in (("é#1", 8.0), ("two", None)):
        files = {"midi": f"{stem}.mid", "picture": f"{stem}.png", "sound": f"{stem}.ogg"}
        (tmp_path / files["midi"]).touch()
        write_roll(tmp_path / files["picture"], notes, title=stem, prompt_seconds=prompt_end)
        write_sound(tmp_path / files["sound"], notes)
        views.append(PieceView(stem, notes, prompt_end, 5, files))
    write_pieces_page(tmp_path, views, title="a & b.mid, continued", command=COMMAND)
    return tmp_path


def test_the_page_names_the_files_beside_it(folder: Path, etude: Callable[..., Notes]) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert f"<code>{COMMAND}</code>" in html.unescape(text) and "<h1>a &amp; b.mid, continued</h1>" in text
    assert "5 new notes · 0:12" in text
    links = set(re.findall(r'<a [^>]*href="([^"]+)"', text))
    assert links == {"%C3%A9%231.mid", "%C3%A9%231.png", "%C3%A9%231.ogg", "two.mid", "two.png", "two.ogg"}
    roll, other = [json.loads(each) for each in re.findall(r"data-roll='([^']+)'", text)]
    assert (roll["start"], other["start"]) == (3.0, 0.0)
    expected = compute_layout(etude(12), prompt_seconds=8.0, heading=True).shares()
    assert roll["top"] == pytest.approx(expected["top"], rel=1e-5)
    assert re.findall(r'<audio [^>]*src="([^"]+)"', text) == ["%C3%A9%231.ogg", "two.ogg"]
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.skipif(PROGRAM is None, reason=f"needs Chromium or Chrome on PATH, or named by {VARIABLE}")
def test_in_a_browser_it_shows_and_plays_the_files_from_before_the_splice(folder: Path) -> None:
    with browser(str(PROGRAM), folder) as opened:
        page = opened.page((folder / "index.html").as_uri())
        page.wait("document.querySelector('audio')?.currentTime === 3")
        assert page.value("[...document.images].every((image) => image.naturalWidth > 0)")
        assert page.value("document.querySelector('.clock').textContent").startswith("0:03 / ")
        assert page.value("document.querySelector('audio').controls") is False
        assert page.complaints == []
        page.close()
