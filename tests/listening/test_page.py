"""The listening test in a real browser: from the first key to the file of answers, which is then counted.

These tests run where Chromium or Chrome is found on PATH, or named by COMA_BROWSER.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chromium import PATIENCE, VARIABLE, Browser, Page, browser, find_browser

from coma_gen.listening.answer_key import ANSWERS, AnswerKey
from coma_gen.listening.scores import read_answers
from coma_gen.midi.notes import Notes
from coma_gen.report.listening_page import listening_page, render_trial

PROGRAM = find_browser()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason=f"needs Chromium or Chrome on PATH, or named by {VARIABLE}"),
]
SHOWN = "document.querySelector('section:not([hidden])')"


@dataclass(frozen=True)
class Site:
    """A page of three short trials, and the browser to look at it with."""

    browser: Browser
    file: Path
    sealed: AnswerKey


def chord(*pitches: int) -> Notes:
    return Notes.of([0.5] * len(pitches), [1.0] * len(pitches), pitches, [70] * len(pitches))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    trials = (("real", "model"), ("model", "real"), ("5-gram", "real"))
    sealed = AnswerKey(sources=("model", "real", "5-gram"), trials=trials, about={})
    prompt = Notes.of([0.0, 0.5], [0.5, 0.5], [60, 64], [70, 70])
    played = [render_trial(prompt, (chord(60), chord(64, 67)), seconds=2.0) for _ in trials]
    text = listening_page(played, sealed=sealed.text, digest=sealed.digest, kind=ANSWERS)
    (folder / "page.html").write_text(text, encoding="utf-8")
    with browser(str(PROGRAM), folder) as opened:
        yield Site(opened, folder / "page.html", sealed)


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    """The page as it opens, without what another test kept; it asks for nothing and complains of nothing."""
    opened = site.browser.page(site.file.as_uri())
    opened.value("localStorage.clear()")
    opened.call("Page.reload")
    opened.wait("document.readyState === 'complete' && !document.querySelector('#welcome').hidden")
    yield opened
    assert opened.complaints == []
    assert {address.split(":")[0] for address in opened.requests} <= {"file", "data", "blob"}
    opened.close()


def play_both(page: Page) -> None:
    """With the keys, until the trial can be answered."""
    for number, key in enumerate("ab"):
        page.press(key)
        page.wait(f"{SHOWN}.querySelectorAll('audio')[{number}].ended")
    page.wait(f"!{SHOWN}.querySelector('fieldset').disabled")


def test_from_the_first_key_to_the_score(site: Site, page: Page, tmp_path: Path) -> None:
    assert page.value("document.activeElement.id") == "listener"
    page.value("document.querySelector('#listener').value = 'Ada L.'")
    page.press("Enter")
    assert page.value(f"{SHOWN}.dataset.trial") == "1"
    page.press("4")
    page.click(f"{SHOWN}.querySelector('[data-choice]')")
    assert page.value(f"{SHOWN}.dataset.trial") == "1", "nothing was heard yet"
    for key in "143":
        play_both(page)
        page.press(key)
    assert page.value(f"{SHOWN}.id") == "done"
    page.click(f"{SHOWN}.querySelector('.back')")
    pressed = f"{SHOWN}.querySelector('[aria-pressed=true]').textContent"
    assert page.value(pressed).strip().endswith("Rather B")
    page.press("2")
    site.browser.save_into(tmp_path)
    page.click("document.querySelector('#save')")
    saved, deadline = tmp_path / "answers-Ada-L.json", time.monotonic() + PATIENCE
    while not saved.exists() or not saved.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (listener,) = read_answers([saved], site.sealed)
    assert listener.name == "Ada L."
    votes = listener.votes["model", "real"]
    assert (votes.first, votes.second, votes.clearly) == (0, 2, 2)
    votes = listener.votes["real", "5-gram"]
    assert (votes.first, votes.second, votes.clearly) == (0, 1, 0)
    played = [answer["heard"] for answer in json.loads(saved.read_text())["answers"]]
    assert all(1.0 <= seconds <= 2.1 for pair in played for seconds in pair)


def test_answers_outlast_a_visit(page: Page) -> None:
    page.click("document.querySelector('#start')")
    play_both(page)
    page.press("1")
    assert page.value(f"{SHOWN}.dataset.trial") == "2"
    page.call("Page.reload")
    page.wait("document.readyState === 'complete' && !document.querySelector('#welcome').hidden")
    page.click("document.querySelector('#start')")
    assert page.value(f"{SHOWN}.dataset.trial") == "2"
    assert page.value(f"{SHOWN}.querySelector('progress').value") == 1


def test_one_side_plays_at_a_time_and_the_bar_leads_there(page: Page) -> None:
    page.click("document.querySelector('#start')")
    audio = f"[...{SHOWN}.querySelectorAll('audio')]"
    for key in "ab":
        page.press(key)
        page.wait(f"{audio}['ab'.indexOf('{key}')].currentTime > 0.1")
    assert page.value(f"{audio}[0].paused")
    page.press("b")
    page.wait(f"{audio}[1].paused")
    page.click(f"{SHOWN}.querySelector('.roll')", 0.5, 0.5)
    assert page.value(f"{audio}[0].currentTime") == pytest.approx(1.25, abs=0.05)


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1200, "dark")])
def test_it_fits_and_follows_the_light(site: Site, width: int, scheme: str) -> None:
    page = site.browser.page(site.file.as_uri(), width=width, height=740, prefers_color_scheme=scheme)
    for step in ("", "document.querySelector('#start').click()"):
        page.value(step or "0")
        assert page.value("document.documentElement.scrollWidth") == width
    is_dark = page.value("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 27)"
    assert is_dark == (scheme == "dark")
    sizes = page.value(
        f"[...{SHOWN}.querySelectorAll('.choices button')].map((each) => each.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 40, "fingers can press them"
    assert page.complaints == []
    page.close()


def test_without_scripts_it_says_why(site: Site) -> None:
    page = site.browser.page(site.file.as_uri(), scripts=False)
    assert page.value("document.querySelector('.notice').checkVisibility()")
    page.close()
