"""The report page: one well-formed, self-contained file that escapes all text and is reproducible."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import coma_gen
from coma_gen.core.errors import UserError
from coma_gen.midi.notes import Notes
from coma_gen.report.content import ReportContent, SampleView
from coma_gen.report.page import build_report

VOID = {"meta", "link", "img", "source", "br"}
SELF_CLOSED = {"line", "rect", "polyline", "circle", "path"}


class Page(HTMLParser):
    """Collects elements and text, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSED
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]

    def tags(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def build(folder: Path, content: ReportContent) -> tuple[str, Page]:
    build_report(folder, content=content)
    text = (folder / "index.html").read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, content: ReportContent) -> tuple[Path, str, Page]:
    folder = tmp_path_factory.mktemp("built") / "report"
    text, page = build(folder, content)
    return folder, text, page


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.split(";base64,", 1)[1], validate=True)


def test_everything_is_inside_and_beside(built: tuple[Path, str, Page], content: ReportContent) -> None:
    folder, _, page = built
    names = {"index.html", "learning-curve.svg", "bits-per-note.svg", "nll-by-type.svg"}
    names |= {"nll-by-context.svg", "bits-by-composer.svg", "window-shares.svg"}
    names |= {f"{sample.name}{suffix}" for sample in content.samples for suffix in (".png", ".flac", ".mid")}
    assert {path.name for path in folder.iterdir()} == names
    links = {link["download"] or "": link.get("href") for link in page.tags("a") if link.get("download")}
    assert set(links) == {name for name in names if not name.endswith((".html", ".svg"))}
    for name, address in links.items():
        if name.endswith(".flac"):  # the script fills it in, so that the page has each sound once
            assert address is None
        else:
            assert decoded(address or "") == (folder / name).read_bytes()
    assert (folder / "prompted-0.mid").read_bytes() == content.samples[1].midi
    sounds = [decoded(audio["src"] or "") for audio in page.tags("audio")]
    assert sounds == [(folder / f"{sample.name}.flac").read_bytes() for sample in content.samples]
    assert all("controls" in audio and audio["aria-label"] for audio in page.tags("audio"))
    for image in (*page.tags("img"), *page.tags("source")):
        assert decoded(image.get("src") or image.get("srcset") or "").startswith(b"\x89PNG")
    assert all(image["alt"] for image in page.tags("img"))


def test_nothing_is_loaded(built: tuple[Path, str, Page]) -> None:
    _, text, page = built
    references = [
        value for name in ("src", "srcset", "href", "poster", "action", "data") for value in page.values(name)
    ]
    assert references
    assert all(value.startswith(("data:", "#")) for value in references)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    assert page.tags("script") == [{}]
    assert not page.values("style")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_content_security_policy_allows_the_own_style_and_script_only(built: tuple[Path, str, Page]) -> None:
    _, text, page = built
    (policy,) = (meta["content"] or "" for meta in page.tags("meta") if meta.get("http-equiv"))
    wanted = {"default-src": "'none'", "img-src": "data:", "media-src": "data:"}
    wanted |= {"base-uri": "'none'", "form-action": "'none'"}
    for tag in ("style", "script"):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        wanted[f"{tag}-src"] = f"'sha256-{digest}'"
    assert dict(rule.split(maxsplit=1) for rule in policy.split("; ")) == wanted
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_the_figures_are_there(built: tuple[Path, str, Page]) -> None:
    _, _, page = built
    text = " ".join(page.text.split())
    wanted = ("20.83 [19.53, 21.97]", "25.07", "29.41", "32.33", "1.17 million parameters", "10 performances")
    wanted += (
        "82,345",
        "329,380",
        "1.00012",
        "no notes: 2",
        "in two splits: 5",
        "tags.`digest.model` = 'c0ffee'",
        "a/b & c.midi",
    )
    wanted += ("Frédéric Chopin, Étude, Op. 10", "22.75", "2 performances", "context tokens")
    wanted += (
        "0.73 (5%: 0.48)",
        "0.43 (95%: 0.96)",
        "3.125",
        "2 samples, 24 excerpts of train and 11 of test",
    )
    wanted += (
        "With fewer than 20 samples, these figures are unreliable.",
        "longest passage",
        "6.5",
        "onset error ms · rms",
    )
    wanted += ("Attention windows", "layer 2", "75%")
    wanted += ("Pitch", "3.77 bits/note", "CC BY-NC-SA", "continues 1.5 s", "evaluate.json")
    assert [piece for piece in wanted if piece not in text] == []
    assert "synthetic" not in text.lower()
    labels = page.values("aria-label")
    assert any(label.startswith("Nats per token by context tokens: carried, 2:") for label in labels)


def test_anchors_lead_somewhere(built: tuple[Path, str, Page]) -> None:
    _, _, page = built
    names = page.values("id")
    assert len(names) == len(set(names))
    targets = [href[1:] for href in page.values("href") if href.startswith("#")]
    targets += page.values("aria-labelledby")
    assert set(targets) <= set(names)
    assert [attributes.get("lang") for attributes in page.tags("html")] == ["en"]


def test_synthetic_numbers_say_so(
    metrics: Callable[..., dict[str, Any]], tmp_path: Path, content: ReportContent
) -> None:
    made_up = dataclasses.replace(content, corpus="synthetic", metrics=metrics("synthetic"))
    _, page = build(tmp_path / "report", made_up)
    assert "synthetic corpus" in page.text
    assert "CC BY-NC-SA" not in page.text
    assert len(page.tags("figure")) == 6
    for caption in re.findall(r"[^.]*\b(?:corpus|split)\b[^.]*\.", page.text):
        if "MLflow" not in caption and "dashed lines" not in caption:
            assert "synthetic" in caption.lower()
    for label in page.values("aria-label"):
        if label.startswith(
            ("Held-out", "The splits", "Training on", "Tokenizer round trip", "Samples of", "Generated music")
        ):
            assert "synthetic" in label


HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}"


def test_text_is_never_markup(
    etude: Callable[..., Notes], metrics: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    figures: dict[str, Any] = metrics()
    figures["evaluate"]["test"]["by_type"] = {HOSTILE: {"nll_per_token": 1.0}}
    figures["baseline"]["test"][HOSTILE] = {"bits_per_note_10ms": 3.0}
    figures["split"]["unreadable"] = {HOSTILE: 1}
    figures[HOSTILE] = {HOSTILE: HOSTILE}
    sample = SampleView(HOSTILE, etude(1), b"x", 0.5, {HOSTILE: HOSTILE})
    content = ReportContent(HOSTILE, HOSTILE, figures, [], [sample], True, HOSTILE, {HOSTILE: HOSTILE})
    text, page = build(tmp_path / "report", content)
    assert text.count("<script") == 1
    assert "49" not in re.findall(r"<title>(.*?)</title>", text)[0]
    assert page.text.count(HOSTILE) > 8
    names = [path.name for path in (tmp_path / "report").iterdir()]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_names_that_would_be_one_file(
    etude: Callable[..., Notes], tmp_path: Path, content: ReportContent
) -> None:
    names = ("../../up", "a/b", "a b", "A-B", "", "..")
    samples = [SampleView(name, etude(1), name.encode(), None, {}) for name in names]
    _, page = build(tmp_path / "report", dataclasses.replace(content, samples=samples, audio=False))
    files = [path.stem for path in (tmp_path / "report").glob("*.png")]
    assert len({name.casefold() for name in files}) == len(names)
    assert {path.name for path in tmp_path.iterdir()} == {"report"}
    assert not page.tags("audio") + page.tags("script") + page.tags("button") + page.values("hidden")
    assert len(page.values("download")) == 2 * len(names)
    assert "script-src" not in page.values("content")[0]


@pytest.mark.parametrize(
    "present", [(), ("train",), ("evaluate",), ("split", "shard"), ("baseline",), ("sample",)]
)
def test_absent_metrics(
    metrics: Callable[..., dict[str, Any]], tmp_path: Path, present: tuple[str, ...]
) -> None:
    some = {stage: value for stage, value in metrics().items() if stage in present}
    _, page = build(tmp_path / "report", ReportContent("Piano", "folder", some, [], [], audio=True))
    assert len(page.tags("h1")) == 1
    assert "MLflow" not in page.text
    assert ("Scores" in page.text) == bool({"evaluate", "baseline"} & set(present))


def test_half_of_the_metrics_and_a_diverged_curve(tmp_path: Path) -> None:
    half: dict[str, Any] = {
        "split": {"train": {"hours": 2.0}, "test": None, "unreadable": 3},
        "evaluate": {"test": {"bits_per_note_10ms": 20.5, "by_type": {"Pitch": 3, "Bar": {"tokens": 1}}}},
        "baseline": {"validation": {"bigram": {}}},
        "train": None,
        "sample": {},
    }
    curve = [
        {"step": 1, "train_loss": "nan"},
        {"step": 2, "train_loss": "inf"},
        {"train_loss": 3},
        {"step": 3},
    ]
    _, page = build(tmp_path / "report", ReportContent("Piano", "folder", half, curve, [], audio=True))
    assert "20.50" in page.text
    assert not [path for path in (tmp_path / "report").iterdir() if path.name == "learning-curve.svg"]


def test_only_a_report_is_replaced(tmp_path: Path, content: ReportContent) -> None:
    quiet = dataclasses.replace(content, samples=[], audio=False)
    folder = tmp_path / "report"
    build_report(folder, content=quiet)
    (folder / "old.png").write_bytes(b"")
    build_report(folder, content=quiet)
    assert not (folder / "old.png").exists()
    (folder / "index.html").rename(folder / "thesis.txt")
    with pytest.raises(UserError, match="must be absent, empty or a report"):
        build_report(folder, content=quiet)
    assert (folder / "thesis.txt").exists()


TWICE = """
import sys, hashlib, pathlib
sys.path.insert(0, sys.argv[1])
from conftest import CURVE, etude, metrics
from coma_gen.report.content import ReportContent, SampleView
from coma_gen.report.page import build_report
sample = SampleView("prompted-0", etude(4), b"MThd", 1.5, {"top_p": 0.95})
params = {"train": {"seed": 0}}
content = ReportContent("Piano", "maestro-mini", metrics(), CURVE, [sample], True, "name", params)
build_report(pathlib.Path(sys.argv[2]), content=content)
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """Two processes, with other hash seeds, other folders and another matplotlibrc."""
    found = []
    for number in (1, 2):
        home = tmp_path / str(number)
        home.mkdir()
        (home / "matplotlibrc").write_text("font.size: 20\naxes.grid: true\n" if number == 2 else "")
        environment = os.environ | {
            "PYTHONHASHSEED": str(number),
            "MATPLOTLIBRC": str(home),
            "TZ": f"UTC{number}",
            "PYTHONPATH": str(Path(coma_gen.__file__).parents[1]),
        }
        command = [sys.executable, "-c", TWICE, str(Path(__file__).parent), str(home / "report")]
        subprocess.run(command, check=True, env=environment, cwd=home)
        found.append({path.name: path.read_bytes() for path in (home / "report").iterdir()})
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []
