"""`coma-gen experiments --compare`: one offline page about two runs."""
# ruff: noqa: F811 - the fixtures are those of test_overview.py

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import browser, find_browser

from coma_gen.cli.main import main
from coma_gen.core.errors import UserError
from coma_gen.experiments.comparison import write_comparison
from coma_gen.midi.io import midi_bytes
from coma_gen.midi.notes import Notes
from experiments.test_overview import Leave, leave, repository  # noqa: F401 - pytest finds them here

CURVE = "step,tokens,train_loss,learning_rate,grad_norm,validation_nll\n"


def run(repository: Path, leave: Leave, name: str, bits: float, pitch: int, **otherwise: Any) -> None:
    """Leaves a run with a curve and one sample, which repeats a pitch."""
    for folder in ("metrics", "data/samples"):
        (repository / folder).mkdir(parents=True, exist_ok=True)
    rows = [f"{step},{step},{bits / step:.4f},0.1,1,{bits / step + 1:.4f}\n" for step in (10, 20)]
    (repository / "metrics" / "curve.csv").write_text(CURVE + "".join(rows))
    (repository / "metrics" / "download.json").write_text('{"corpus": "synthetic"}')
    onsets = np.arange(8) / 4
    notes = Notes.of(onsets, np.full(8, 0.2), np.full(8, pitch), np.full(8, 70))
    (repository / "data" / "samples" / "unprompted-01.mid").write_bytes(midi_bytes(notes))
    listed = {"settings": {}, "samples": [{"name": "unprompted-01", "prompt_seconds": None}]}
    (repository / "data" / "samples" / "samples.json").write_text(json.dumps(listed))
    leave(name, bits, **otherwise)


@pytest.fixture
def page(repository: Path, leave: Leave) -> str:
    """The page about the committed results and a worse experiment."""
    run(repository, leave, "HEAD", 20.0, 60)
    run(repository, leave, "slower", 23.0, 64, train={"learning_rate": 0.5})
    write_comparison(repository, "HEAD", "slower", repository / "page.html", resamples=200)
    return (repository / "page.html").read_text()


def rows_of(page: str) -> list[list[str]]:
    """The cells of all tables, row by row."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


def test_it_says_what_differs_how_sure_it_is_and_all_figures(page: str) -> None:
    rows = rows_of(page)
    assert ["train.learning_rate", "0.004", "0.5"] in rows
    assert [row[:3] for row in rows if row[0] == "bits"] == [["bits", "20", "23"]]
    assert "slower differs by +3.00 [+0.00, +4.50] bits per note from HEAD" in page
    assert "contains 0" in page


def test_both_losses_and_both_samples_stand_side_by_side(page: str) -> None:
    for heading in ("Validation loss", "Training loss"):
        assert f"{heading} in nats per token, at the end: HEAD: " in page
    assert page.count("<polyline") == 4
    assert page.count('<div class="sides">') == 1
    assert re.findall(r"<h3[^>]*>(.*?: unprompted-01)</h3>", page) == [
        "HEAD: unprompted-01",
        "slower: unprompted-01",
    ]
    assert page.count("data:audio/flac") == 2


def test_samples_that_are_not_the_runs_own_are_not_shown(repository: Path, leave: Leave) -> None:
    run(repository, leave, "HEAD", 20.0, 60)
    run(repository, leave, "unsampled", 19.0, 64, without=("sample",))
    write_comparison(repository, "HEAD", "unsampled", repository / "page.html", audio=False, resamples=200)
    page = (repository / "page.html").read_text()
    assert "unprompted-01" not in page and "<polyline" in page


def test_a_run_that_is_not_there_leaves_no_page(repository: Path, leave: Leave) -> None:
    run(repository, leave, "HEAD", 20.0, 60)
    with pytest.raises(UserError, match="'nobody': must be one that was scored"):
        write_comparison(repository, "HEAD", "nobody", repository / "page.html")
    assert not (repository / "page.html").exists()


@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome here")
def test_it_has_players_and_asks_for_nothing(page: str, repository: Path, tmp_path: Path) -> None:
    address = (repository / "page.html").as_uri()
    with browser(str(find_browser()), tmp_path) as chromium:
        opened = chromium.page(address, width=1440, height=900)
        opened.wait("document.querySelectorAll('.toggle:not([hidden])').length === 2")
        left, right = opened.value(
            "[...document.querySelectorAll('.sides .card')].map(card => card.getBoundingClientRect().x)"
        )
        assert left < 720 < right
        assert opened.complaints == []
        assert {asked.split(":")[0] for asked in opened.requests} <= {"file", "data", "blob"}


def test_the_command_names_its_page(
    repository: Path, leave: Leave, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(repository, leave, "HEAD", 20.0, 60)
    run(repository, leave, "slower", 23.0, 64)
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit) as ended:
        main(["experiments", "--compare", "HEAD", "slower"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == "HEAD-slower.html\n"
    assert (repository / "HEAD-slower.html").stat().st_size > 1000
