"""`dvc plots` on a finished checkout, in a real browser: offline, with all plots drawn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkout import Built, copy_of, dvc
from chromium import VARIABLE, browser, find_browser

from coma_gen.config.yaml_reader import read_yaml

ROOT = Path(__file__).resolve().parents[1]
LOSSES = "Train_and_validation"
CHARTS = {LOSSES, *(f"metrics_{name}_csv" for name in ("curve", "validation", "models", "context", "types"))}
"""All that is drawn; every other file below `plots` holds figures."""
LABELS = "[...document.querySelectorAll('#%s .role-axis-label text')].map(label => +label.textContent)"
PROGRAM = find_browser()
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Shown:
    """What `dvc plots show` did.

    Attributes:
        checkout: where.
        page: what it wrote.
        output: what it said.
    """

    checkout: Path
    page: Path
    output: str

    def rows(self, chart: str) -> list[dict[str, str]]:
        """The data of a chart."""
        (spec,) = re.findall(rf'<div id = "{chart}">.*?var spec = (.*?);\n', self.page.read_text(), re.DOTALL)
        found: list[dict[str, str]] = json.loads(spec)["data"]["values"]
        return found


@pytest.fixture(scope="module")
def shown(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    pytest.importorskip("vl_convert", reason="`make .venv/.installed` installs it")
    from coma_gen.workspace.plots_page import write_page

    checkout = copy_of(built.folder, tmp_path_factory.mktemp("plots") / "checkout")
    write_page(checkout)
    output = dvc(checkout, "plots", "show", "-o", "drawn")
    yield Shown(checkout, checkout / "drawn" / "index.html", output)


def test_nothing_is_lacking_and_nothing_is_warned_of(shown: Shown) -> None:
    assert "WARNING" not in shown.output and "failed" not in shown.output
    assert dvc(shown.checkout, "config", "plots.html_template").strip() == "plots/page.html"


def test_validations_are_drawn_as_they_were(shown: Shown) -> None:
    drawn = (row for row in shown.rows(LOSSES) if row["filename::field"] == "validation.csv::validation_nll")
    losses = [float(row["dvc_inferred_y_value"]) for row in drawn]
    curve = (shown.checkout / "metrics" / "curve.csv").read_text().splitlines()[1:]
    assert losses == [float(cell) for row in curve if (cell := row.rpartition(",")[2])]
    assert len(losses) < len(curve) and min(losses) > 1


def test_git_leaves_the_page_alone(shown: Shown) -> None:
    from subprocess_utils import run

    assert "page.html" not in run(shown.checkout, "git", "status", "--porcelain", "--untracked-files=all")


@pytest.mark.skipif(PROGRAM is None, reason=f"no Chromium here; {VARIABLE} names one")
def test_the_page_asks_nobody_and_draws_from_no_zero(shown: Shown, tmp_path: Path) -> None:
    assert PROGRAM is not None
    with browser(PROGRAM, tmp_path) as opened:
        page = opened.page(shown.page.as_uri(), width=1440)
        page.wait(f"document.querySelectorAll('svg.marks').length === {len(CHARTS)}")
        ids = page.value("[...document.querySelectorAll('body > div:not([hidden])')].map(each => each.id)")
        labels = page.value(LABELS % LOSSES)
        images = page.value("[...document.images].map(each => each.naturalWidth)")
        requests, complaints = page.requests, page.complaints
    assert set(ids) > CHARTS and not any(name.endswith("_json") for name in ids)
    assert [address for address in requests if not address.startswith(("file:", "data:"))] == []
    assert [each for each in complaints if "exceptionDetails" in each or each.get("type") == "error"] == []
    assert labels and min(labels) > 0  # steps and nats
    assert len(images) == 2 and min(images) > 100


def test_all_charts_say_what_their_axes_are() -> None:
    plots = [
        (Path(path).suffix, options)
        for stage in read_yaml(ROOT / "dvc.yaml")["stages"].values()
        for each in stage.get("plots", [])
        for path, options in each.items()
    ]
    assert all("title" in options for suffix, options in plots if suffix == ".csv")
    assert not any("title" in options for suffix, options in plots if suffix == ".json")
