"""The report in a real browser: playback, seeking, keyboard, layout, contrast, and an empty console.

These tests run where Chromium or Chrome is found on PATH, or named by COMA_BROWSER.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from chromium import PATIENCE, VARIABLE, Browser, Page, browser, find_browser

from coma_gen.midi.notes import Notes
from coma_gen.report.content import ReportContent, SampleView
from coma_gen.report.layout import LEFT, RIGHT, WIDTH
from coma_gen.report.page import build_report

PROGRAM = find_browser()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason=f"needs Chromium or Chrome on PATH, or named by {VARIABLE}"),
]
SHORT, LONG = 12.0, 100.0
"""Seconds: a picture of one line, and of two."""


@dataclass(frozen=True)
class Site:
    """A report, and the browser to look at it with."""

    browser: Browser
    folder: Path

    @property
    def address(self) -> str:
        return (self.folder / "index.html").as_uri()


def chords(seconds: float) -> Notes:
    """A chord a second, the last at the end."""
    onset = [float(second) for second in range(int(seconds))] * 2
    return Notes.of(onset, [1.0] * len(onset), [48] * int(seconds) + [64] * int(seconds), [70] * len(onset))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, content: ReportContent) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    samples = [
        SampleView("unprompted-01", chords(SHORT), b"MThd one", None, {"seed": 0}),
        SampleView("continued-01", chords(LONG), b"MThd two", 8.0, {"seed": 0}, "Clara Schumann, Soirée"),
    ]
    build_report(folder / "report", content=replace(content, samples=samples))
    with browser(str(PROGRAM), folder) as opened:
        yield Site(opened, folder / "report")


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    """The report as it opens; whatever a test does, the page asks for nothing and complains of nothing."""
    opened = site.browser.page(site.address)
    yield opened
    assert opened.complaints == []
    assert {address.split(":")[0] for address in opened.requests[1:]} <= {"data", "blob"}
    opened.close()


def part(selector: str, card: int = 0) -> str:
    return f"document.querySelectorAll('.card')[{card}].querySelector('{selector}')"


def current_time(page: Page, card: int = 0) -> float:
    return float(page.value(f"{part('audio', card)}.currentTime"))


def playhead(page: Page, card: int = 0) -> tuple[float, float]:
    """The middle and the top of the playhead, as shares of the picture."""
    left, top = page.value(
        f"""(() => {{
            const line = {part(".playhead", card)}.getBoundingClientRect();
            const box = {part(".roll img", card)}.getBoundingClientRect();
            return [(line.x + line.width / 2 - box.x) / box.width, (line.y - box.y) / box.height];
        }})()"""
    )
    return left, top


def values(page: Page, card: int = 0) -> list[str]:
    """What a screen reader is told of the place: lowest, present, highest, in words."""
    names = [f"aria-value{name}" for name in ("min", "now", "max", "text")]
    told = page.value(f"{names}.map((name) => {part('.roll', card)}.getAttribute(name))")
    return [str(value) for value in told]


def across(seconds: float, line_seconds: float) -> float:
    """Where a time is on a line, as a share of the picture's width."""
    return (LEFT + seconds % line_seconds / line_seconds * (WIDTH - LEFT - RIGHT)) / WIDTH


def test_it_plays_and_the_playhead_moves(page: Page) -> None:
    assert playhead(page)[0] == pytest.approx(LEFT / WIDTH, abs=0.002)
    assert page.value(f"{part('.clock')}.textContent") == "0:00 / 0:13"
    assert values(page) == ["0", "0", "13", "0:00 of 0:13"]
    page.click(part(".toggle"))
    page.wait(f"{part('audio')}.currentTime > 1.1")
    assert page.value(f"{part('.word')}.textContent") == "Pause"
    assert page.value(f"{part('.clock')}.textContent").startswith("0:0")
    page.click(part(".toggle"))
    page.wait(f"{part('audio')}.paused && {part('.word')}.textContent === 'Play'")
    now = current_time(page)
    assert values(page)[1] == str(int(now))
    assert playhead(page)[0] == pytest.approx(across(now, SHORT), abs=0.01)
    assert playhead(page)[0] > across(1.0, SHORT)


def test_one_piece_plays_at_a_time(page: Page) -> None:
    for card in (0, 1):
        page.click(part(".toggle", card))
        page.wait(f"{part('audio', card)}.currentTime > 0.1")
    assert page.value("[...document.querySelectorAll('audio')].map((audio) => audio.paused)") == [True, False]
    page.wait(f"{part('.word')}.textContent === 'Play'")


def test_it_ends_and_begins_again(page: Page) -> None:
    page.value(f"{part('.roll')}.focus({{preventScroll: true}})")
    page.press("End")
    page.press("ArrowLeft")
    page.press(" ")
    page.wait(f"{part('audio')}.ended && {part('.word')}.textContent === 'Play'")
    assert playhead(page)[0] == pytest.approx((WIDTH - RIGHT) / WIDTH, abs=0.002)
    page.press(" ")
    page.wait(
        f"!{part('audio')}.paused && {part('audio')}.currentTime < 8 && {part('audio')}.currentTime > 0"
    )


@pytest.mark.parametrize(("card", "x", "y", "line_seconds"), [(0, 0.25, 0.5, SHORT), (1, 0.8, 0.8, 50.0)])
def test_a_press_on_the_picture_leads_there(
    page: Page, card: int, x: float, y: float, line_seconds: float
) -> None:
    page.click(part(".roll img", card), x, y)
    expected = (x * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * line_seconds + (line_seconds if card else 0.0)
    assert current_time(page, card) == pytest.approx(expected, abs=0.1)
    left, top = playhead(page, card)
    assert left == pytest.approx(x, abs=0.003)
    assert (top > 0.5) == bool(card)
    assert page.value(f"{part('audio', card)}.paused")


def test_keys(page: Page) -> None:
    page.value("window.taken = []; addEventListener('keydown', (e) => window.taken.push(e.defaultPrevented))")
    page.value(f"{part('.roll', 1)}.focus({{preventScroll: true}})")
    for key, then in {"ArrowRight": 1, "PageUp": 11, "ArrowUp": 12, "PageDown": 2, "Home": 0}.items():
        page.press(key)
        assert current_time(page, 1) == pytest.approx(then), key
    page.press("End")
    assert current_time(page, 1) == pytest.approx(page.value(f"{part('audio', 1)}.duration"))
    assert values(page, 1) == ["0", "101", "101", "1:41 of 1:41"]
    page.press("Home")
    for playing in (True, False):
        page.press(" ")
        page.wait(f"!{part('audio', 1)}.paused === {str(playing).lower()}")
    assert page.value("window.taken") == [True] * 9, "no key scrolls the page as well"
    page.press("a")
    assert page.value("window.taken")[9:] == [False]


def test_everything_can_be_reached_by_keyboard_and_is_visible(page: Page) -> None:
    reached = []
    for _ in range(60):
        page.press("Tab")
        name, role, outline = page.value(
            """(({activeElement: now}) => [
                (now.getAttribute('aria-label') ?? now.textContent).trim().replace(/\\s+/g, ' '),
                now.getAttribute('role') ?? now.tagName,
                parseFloat(getComputedStyle(now).outlineWidth),
            ])(document)"""
        )
        assert role == "BODY" or outline >= 2, name
        reached.append((name, role))
    wanted = []
    for name in ("unprompted-01", "continued-01"):
        wanted += [
            (f"Position in {name}", "slider"),
            (f"Play {name}", "BUTTON"),
            (f"MIDI file of {name}", "A"),
        ]
        wanted += [(f"Sound of {name}", "A"), (f"Picture of {name}", "A"), (f"Settings of {name}", "SUMMARY")]
    first = reached.index(wanted[0])
    assert reached[first : first + len(wanted)] == wanted


def test_files_can_be_saved(site: Site, page: Page, tmp_path: Path) -> None:
    site.browser.save_into(tmp_path)
    for kind, number in (("mid", 0), ("flac", 1), ("png", 2)):
        page.click(f"{part('.files')}.querySelectorAll('a')[{number}]")
        original = (site.folder / f"unprompted-01.{kind}").read_bytes()
        saved, deadline = tmp_path / f"unprompted-01.{kind}", time.monotonic() + PATIENCE
        while not saved.exists() or saved.stat().st_size < len(original):
            assert time.monotonic() < deadline, kind
            time.sleep(0.05)
        assert saved.read_bytes() == original


OVERFLOWING = """[...document.body.querySelectorAll('*')].filter((element) =>
    !element.closest('.wide, .skip') && element.getBoundingClientRect().right > innerWidth + 0.5).length"""

CUT_OFF = """[...document.querySelectorAll('svg.chart')].flatMap((chart) => {
    const [box, texts] = [chart.getBoundingClientRect(), [...chart.querySelectorAll('text')]];
    const isCut = ({left, right}) => left < box.left - 0.5 || right > box.right + 0.5;
    return texts.filter((text) => isCut(text.getBoundingClientRect())).map((text) => text.textContent);
})"""


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_it_fits(site: Site, width: int) -> None:
    page = site.browser.page(site.address, width=width, height=740)
    assert page.value("document.documentElement.scrollWidth") == width
    assert page.value(OVERFLOWING) == 0
    assert page.value(CUT_OFF) == []
    page.close()


def test_the_playhead_stays_visible_on_a_small_screen(site: Site) -> None:
    page = site.browser.page(site.address, width=360, height=740)
    page.value(f"{part('.roll')}.focus({{preventScroll: true}})")
    for key, low, high in (("End", 0.9, 1.0), ("Home", 0.0, 0.1)):
        page.press(key)
        left, right = page.value(
            f"""(({{left, right}}, line) => [line - left, right - line])(
                {part(".wide")}.getBoundingClientRect(), {part(".playhead")}.getBoundingClientRect().x)"""
        )
        assert left >= 0 and right >= 0, key
        assert low <= playhead(page)[0] <= high
    assert page.complaints == []
    page.close()


TEXTS = """(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const luminance = (color) => {
        const [r, g, b] = rgba(color).map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    document.querySelectorAll('details').forEach((one) => (one.open = true));
    for (const element of document.querySelectorAll('body *')) {
        const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data);
        if (!text.join('').trim() || !element.checkVisibility() || element.closest('script')) continue;
        let behind = element;
        const ground = () => getComputedStyle(behind).backgroundColor;
        while (behind && rgba(ground())[3] < 255) behind = behind.parentElement;
        const style = getComputedStyle(element);
        const color = element.closest('svg') ? style.fill : style.color;
        const two = [luminance(color), luminance(ground())];
        found.push([text.join('').trim(), (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05)]);
    }
    return found;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(site: Site, scheme: str) -> None:
    page = site.browser.page(site.address, prefers_color_scheme=scheme)
    page.click(part(".toggle"))
    texts = page.value(TEXTS)
    assert len(texts) > 200
    assert [(text, round(ratio, 2)) for text, ratio in texts if ratio < 4.5] == []
    is_dark = page.value("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 27)"
    assert is_dark == (scheme == "dark")
    page.close()


@pytest.mark.parametrize(("motion", "draws"), [("no-preference", True), ("reduce", False)])
def test_the_playhead_glides_unless_less_motion_is_wanted(site: Site, motion: str, draws: bool) -> None:
    page = site.browser.page(site.address, prefers_reduced_motion=motion)
    page.value(
        """(() => {
            const draw = window.requestAnimationFrame;
            window.drawn = 0;
            window.requestAnimationFrame = (then) => (window.drawn++, draw(then));
        })()"""
    )
    page.click(part(".toggle"))
    page.wait(f"{part('audio')}.currentTime > 0.6")
    assert (page.value("window.drawn") > 0) == draws
    page.wait(f"parseFloat({part('.playhead')}.style.left) > {100 * across(0.2, SHORT)}")
    page.close()


def test_without_scripts_the_browser_has_its_own_controls(site: Site) -> None:
    page = site.browser.page(site.address, scripts=False)
    shown = (
        "[...document.querySelectorAll('audio')].map((audio) => audio.controls && audio.offsetHeight > 30)"
    )
    assert page.value(shown) == [True, True]
    unseen = "[...document.querySelectorAll('.toggle, .clock, .save, .playhead, #how')]"
    assert page.value(f"{unseen}.map((one) => one.checkVisibility())") == [False] * 9
    assert "slider" not in page.value("[...document.querySelectorAll('[role]')].map((one) => one.role)")
    page.close()


def test_a_page_without_sound_has_links_only(site: Site, content: ReportContent, tmp_path: Path) -> None:
    build_report(tmp_path / "report", content=replace(content, audio=False))
    page = site.browser.page((tmp_path / "report" / "index.html").as_uri())
    assert (
        page.value("document.querySelectorAll('audio, button, script, [hidden], [role=slider]').length") == 0
    )
    assert page.value("[...document.querySelectorAll('.files a')].map((link) => link.download)") == [
        f"{sample.name}{ending}" for sample in content.samples for ending in (".mid", ".png")
    ]
    assert page.complaints == []
    page.close()


def test_no_other_script_runs(site: Site) -> None:
    page = site.browser.page(site.address)
    page.value(
        """(() => {
            const script = document.createElement('script');
            script.textContent = 'window.strange = true';
            document.body.append(script);
            document.body.insertAdjacentHTML('beforeend', '<p style="color: red" onclick="1">strange</p>');
        })()"""
    )
    assert page.value("window.strange") is None
    assert len(page.complaints) >= 2, "what fails is heard of"
    assert "Content Security Policy" in str(page.complaints)
    page.close()
