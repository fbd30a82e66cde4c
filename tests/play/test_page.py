"""`coma-gen play` in a real browser: from choosing a file to continuing a variant.

These tests run where Chromium or Chrome is found on PATH, or named by COMA_BROWSER.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chromium import PATIENCE, VARIABLE, Browser, Page, browser, find_browser
from subprocess_utils import run, started, wait_until

from coma_gen.midi.io import midi_bytes, read_notes
from coma_gen.play.prompts import PROMPTS

PROGRAM = find_browser()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason=f"needs Chromium or Chrome on PATH, or named by {VARIABLE}"),
]
PLAY = (sys.executable, "-m", "coma_gen.cli", "play", "--no-browser")
READY = "document.documentElement.dataset.ready !== undefined"
PLAYERS = "[...document.querySelectorAll('.variants audio')]"


@dataclass(frozen=True)
class Site:
    """The page, the folder of the server, and the browser to look at it with."""

    browser: Browser
    address: str
    folder: Path
    model: Path

    def open(self, **settings: object) -> Page:
        still = {"prefers_reduced_motion": "reduce"}  # or what is to be pressed may be scrolling away
        page = self.browser.page(self.address, **still, **settings)  # type: ignore[arg-type]
        page.wait(READY)
        return page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("play")
    limits = ("--max-seconds", "5000", "--max-tokens", "1000000", "--max-prompt-bytes", "5000")
    with started(folder, *PLAY, "--model", str(model), *limits) as job:
        wait_until(lambda: "Stop with Ctrl-C" in job.output)
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", job.output)
        with browser(str(PROGRAM), folder) as opened:
            yield Site(opened, address, folder, model)


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    """The page as it opens; whatever a test does, it asks nobody but its server and complains of nothing."""
    opened = site.open()
    yield opened
    refusals = [
        each for each in opened.complaints if "status of 400" in each.get("entry", {}).get("text", "")
    ]
    assert opened.complaints == refusals
    assert [each for each in opened.requests if not each.startswith((site.address, "blob:", "data:"))] == []
    opened.close()


def element(selector: str, number: int = 0) -> str:
    return f"document.querySelectorAll({json.dumps(selector)})[{number}]"


def text(page: Page, selector: str, number: int = 0) -> str:
    return str(page.value(f"{element(selector, number)}.textContent"))


def set_value(page: Page, name: str, value: float | str) -> None:
    page.value(f"$('{name}').value = '{value}'; $('{name}').dispatchEvent(new Event('input'))")


def choose(page: Page, prompt: str) -> None:
    page.click(element(f"[data-prompt={prompt}]"))
    page.wait(f"!$('work').hidden && $('title').textContent === '{prompt}.mid'")


def ask(page: Page, *, num: int, seconds: float, seed: int | str) -> None:
    page.click(element("input[name=num]", num - 1))
    if seconds > 120:
        page.value("$('seconds').max = 5000; $('seconds').step = 1")
    set_value(page, "seconds", seconds)
    set_value(page, "seed", seed)
    page.click("$('go')")


def wait_for_variants(page: Page, num: int) -> None:
    page.wait(f"document.querySelectorAll('.take:first-child .toggle:enabled').length === {num}")


def saved(folder: Path, name: str) -> Path:
    deadline = time.monotonic() + PATIENCE
    while not (folder / name).exists():
        assert time.monotonic() < deadline, name
        time.sleep(0.05)
    return folder / name


def test_the_whole_way(site: Site, page: Page, tmp_path: Path) -> None:
    site.browser.save_into(tmp_path)
    choose(page, "waltz")
    assert text(page, "#facts") == "71 notes · 0:12"
    page.click("$('roll')", 0.5, 0.4)
    assert text(page, "#choice") == "The new music begins at 0:05."
    set_value(page, "use", 3)
    assert text(page, "#use-text") == "the last 3 s"
    ask(page, num=2, seconds=10, seed=7)
    wait_for_variants(page, 2)
    begins = [round(float(start), 1) for start in page.value(f"{PLAYERS}.map((audio) => audio.currentTime)")]
    assert begins == [0.0, 0.0], "the new music begins three seconds after the piece does"

    page.click(element(".midi"))
    page.click(element(".midi", 1))
    pieces = [saved(tmp_path, f"waltz-continued-0{number}.mid").read_bytes() for number in (1, 2)]
    command = text(page, ".command code")
    assert command.startswith("coma-gen generate waltz.mid --seconds 10 --num 2 --seed 7 --from-second 2.")
    (site.folder / "waltz.mid").write_bytes(midi_bytes(PROMPTS["waltz"]()))
    words = [sys.executable, "-m", "coma_gen.cli", *shlex.split(command)[1:]]
    run(site.folder, *words, "--out", "again", "--audio", "none")
    again = [path.read_bytes() for path in sorted((site.folder / "again").glob("*.mid"))]
    assert again == pieces, "the command makes the same bytes"

    page.click(element(".zip"))
    with zipfile.ZipFile(saved(tmp_path, "waltz-continued.zip")) as file:
        assert file.read("waltz-continued-02.mid") == pieces[1]
        assert file.read("command.txt").decode().strip() == command

    page.click(element(".keep", 1))
    page.wait("$('title').textContent === 'waltz-continued-02.mid'")
    assert text(page, "#facts").startswith(f"{len(read_notes(pieces[1]))} notes")
    ask(page, num=1, seconds=5, seed=8)
    wait_for_variants(page, 1)
    page.click(element(".flac"))
    assert saved(tmp_path, "waltz-continued-02-01.flac").read_bytes().startswith(b"fLaC")
    page.click(element("#trail button", 1))
    page.wait("$('title').textContent === 'waltz.mid'")
    assert page.value("document.querySelectorAll('.variants .card').length") == 2, (
        "what was made is still there"
    )
    page.value("history.back()")
    page.wait("$('title').textContent === 'waltz-continued-02.mid'")


def test_a_file_is_played_with_expression(site: Site, page: Page, tmp_path: Path) -> None:
    site.browser.save_into(tmp_path)
    choose(page, "chorale")
    page.click(element("input[name=mode]", 1))
    assert text(page, "#go") == "Add expression" and text(page, "#hint").startswith("All pitches stay.")
    assert page.value("[...document.querySelectorAll('.of-continue')].every((part) => part.hidden)")
    set_value(page, "timing", 50)
    page.value("$('lengths').value = 'keep'")
    assert text(page, "#timing-text") == "up to 50 ms early or late"
    page.click(element("input[name=num]", 1))
    set_value(page, "seed", 3)
    page.click("$('go')")
    wait_for_variants(page, 2)
    assert (
        text(page, ".take .about")
        == "with expression · normal predictability · up to 50 ms early or late · lengths as written · seed 3"
    )
    assert page.value(f"{PLAYERS}.map((audio) => audio.currentTime)") == [0, 0]
    page.click(element(".midi"))
    page.click(element(".midi", 1))
    pieces = [saved(tmp_path, f"chorale-expressed-0{number}.mid").read_bytes() for number in (1, 2)]
    given = PROMPTS["chorale"]()
    for piece in pieces:
        notes = read_notes(piece)
        assert sorted(notes.pitch.tolist()) == sorted(given.pitch.tolist())
        assert notes.velocity.tolist() != given.velocity.tolist()
    command = text(page, ".command code")
    assert command.startswith("coma-gen express chorale.mid --seed 3 --num 2 --timing 50 --keep-lengths")
    (site.folder / "chorale.mid").write_bytes(midi_bytes(given))
    run(site.folder, sys.executable, "-m", "coma_gen.cli", *shlex.split(command)[1:], "--out", "touch")
    again = [(site.folder / "touch" / f"chorale-expressed{end}.mid").read_bytes() for end in ("", "-02")]
    assert again == pieces, "the command makes the same bytes"
    page.click(element(".zip"))
    with zipfile.ZipFile(saved(tmp_path, "chorale-expressed.zip")) as file:
        assert file.read("chorale-expressed-01.mid") == pieces[0]
    page.click(element(".keep"))
    page.wait("$('title').textContent === 'chorale-expressed-01.mid'")


def test_wishes_are_asked_for_in_words(site: Site, page: Page, tmp_path: Path) -> None:
    site.browser.save_into(tmp_path)
    choose(page, "waltz")
    page.click("$('pulls').querySelector('summary')")
    for name, value, told in (
        ("density", "-1", "sparser"),
        ("loudness", "0.5", "a little louder"),
        ("register", "2", "very much higher"),
    ):
        set_value(page, name, value)
        assert text(page, f"#{name}-text") == told
    page.value("$('key').value = 'F# minor'")
    ask(page, num=1, seconds=5, seed=2)
    wait_for_variants(page, 1)
    told = "5 s · normal predictability · sparser · a little louder · very much higher · in F# minor · seed 2"
    assert text(page, ".take .about") == told
    command = text(page, ".command code")
    wishes = "--density -1 --loudness 0.5 --register 2 --key 'F# minor'"
    assert wishes in command
    (site.folder / "waltz.mid").write_bytes(midi_bytes(PROMPTS["waltz"]()))
    words = [sys.executable, "-m", "coma_gen.cli", *shlex.split(command)[1:]]
    run(site.folder, *words, "--out", "wished", "--audio", "none")
    (again,) = (site.folder / "wished").glob("*.mid")
    page.click(element(".midi"))
    assert again.read_bytes() == saved(tmp_path, "waltz-continued-01.mid").read_bytes()
    page.click(element("#trail button"))
    page.click("$('nothing')")
    page.wait("!$('work').hidden && $('key').querySelector('[value=prompt]').disabled")
    assert page.value("$('modes').hidden && !$('use-field').checkVisibility()")


def test_players_start_five_seconds_before_the_new_music_and_space_plays(site: Site, page: Page) -> None:
    choose(page, "chorale")
    ask(page, num=2, seconds=10, seed=1)
    wait_for_variants(page, 2)
    last_onset = float(PROMPTS["chorale"]().end_of_onsets)
    page.wait(f"{PLAYERS}.every((audio) => audio.currentTime > 0)")
    for start in page.value(f"{PLAYERS}.map((audio) => audio.currentTime)"):
        assert start == pytest.approx(last_onset - 5, abs=0.01)
    page.value("document.activeElement.blur()")
    page.press(" ")
    page.wait(f"!{PLAYERS}[0].paused && {PLAYERS}[0].currentTime > {last_onset - 5 + 0.2}")
    page.press(" ")
    page.wait(f"{PLAYERS}[0].paused")
    page.click(element(".variants .toggle", 1))
    page.wait(f"!{PLAYERS}[1].paused")
    page.click("$('hear')")
    page.wait(f"{PLAYERS}[1].paused && !preview.audio.paused && !$('roll').querySelector('.playhead').hidden")
    page.click("$('hear')")
    page.wait("preview.audio.paused")


def test_another_temperature_is_another_take(page: Page) -> None:
    page.click("$('nothing')")
    page.wait("!$('work').hidden")
    for number, (temperature, told) in enumerate(
        [("1", "normal predictability"), ("0.8", "much more predictable")], 1
    ):
        set_value(page, "temperature", temperature)
        assert text(page, "#temperature-text") == told
        ask(page, num=1, seconds=5, seed="")
        page.wait(f"document.querySelectorAll('.take .toggle:enabled').length === {number}")
    seeds = [re.findall(r"seed (\d+)", text(page, ".take .about", number))[0] for number in (0, 2)]
    assert seeds[0] != seeds[1], "another seed each time"
    assert "--temperature 0.8" in text(page, ".command code") and "--prompt" not in text(
        page, ".command code"
    )


def test_stop_ends_it(page: Page) -> None:
    choose(page, "prelude")
    ask(page, num=2, seconds=5000, seed=1)
    page.wait("document.querySelector('.take progress')?.value > 0")
    assert re.fullmatch(r"\d+ of 5000 s", text(page, ".reached"))
    assert page.value("$('go').disabled")
    page.click(element(".stop"))
    page.wait("document.querySelectorAll('.take').length === 0 && $('status').textContent === 'Stopped'")
    assert page.value("$('message').hidden")
    ask(page, num=1, seconds=5, seed=1)
    wait_for_variants(page, 1)


def test_two_at_once_and_who_leaves_makes_room(site: Site, page: Page) -> None:
    other = site.open()
    choose(other, "waltz")
    ask(other, num=1, seconds=5000, seed=1)
    other.wait("document.querySelector('.take progress')?.value > 0")
    choose(page, "prelude")
    ask(page, num=1, seconds=5, seed=2)
    page.wait("document.querySelector('.reached')?.textContent === 'Position in the queue: 1'")
    other.close()
    wait_for_variants(page, 1)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.mid", b"dear diary", "notes.mid: must be a MIDI file, which begins with 'MThd', got 'dear'"),
        ("big.mid", b"MThd" * 2000, "big.mid: must be a MIDI file of at most 5,000 bytes, got 8,000"),
    ],
)
def test_a_bad_file_is_refused_in_words(
    page: Page, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    field = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / name)])
    page.wait("!$('message').hidden")
    assert text(page, "#message").startswith(reason)
    assert page.value("$('message').getAttribute('role')") == "alert"
    choose(page, "waltz")
    assert page.value("$('message').hidden")


def test_a_file_can_be_dropped(page: Page) -> None:
    content = list(midi_bytes(PROMPTS["waltz"]()))
    page.value(
        f"""(() => {{
            const held = new DataTransfer();
            held.items.add(new File([new Uint8Array({content})], "my song.mid"));
            document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer: held, bubbles: true }}));
        }})()"""
    )
    page.wait("$('title').textContent === 'my song.mid'")


def test_the_start_is_chosen_by_keyboard_and_everything_is_reached(page: Page) -> None:
    choose(page, "waltz")
    page.value("$('roll').focus()")
    for key, told in (("Home", "0:00"), ("PageUp", "0:10"), ("ArrowLeft", "0:09"), ("End", "0:11")):
        page.press(key)
        assert page.value("$('roll').getAttribute('aria-valuetext')") == f"{told} of 0:11", key
    assert text(page, "#choice") == "The new music begins at the end."
    reached = ["roll"]
    while reached[-1] != "go":
        page.press("Tab")
        name, outline = page.value(
            """(({activeElement: now}) => [now.id || now.name || now.parentNode.id, parseFloat(
                getComputedStyle(now.type === "radio" ? now.nextElementSibling : now).outlineWidth
            )])(document)"""
        )
        assert outline >= 2, name
        reached.append(name)
        assert len(reached) < 12
    fields = ["use", "seconds", "temperature", "pulls", "num", "seed"]
    assert reached == ["roll", "hear", *fields, "go"]
    set_value(page, "seconds", 5)
    page.press("Enter")
    wait_for_variants(page, 4)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_every_screen_in_light_and_dark(site: Site, width: int, theme: str) -> None:
    page = site.open(width=width, height=844, prefers_color_scheme=theme)
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert page.value(overflow) == 0
    choose(page, "waltz")
    ask(page, num=4, seconds=5, seed=1)
    wait_for_variants(page, 4)
    assert page.value(overflow) == 0
    tops = page.value("[...document.querySelectorAll('.variants .card')].map((card) => card.offsetTop)")
    assert len(set(tops)) == (4 if width == 390 else 2), "side by side where there is room"
    ink, paper = page.value(
        "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    assert (sum(map(int, re.findall(r"\d+", ink))) > sum(map(int, re.findall(r"\d+", paper)))) == (
        theme == "dark"
    )
    assert page.complaints == []
    page.close()
