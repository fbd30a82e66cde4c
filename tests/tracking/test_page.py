"""MLflow's page in a real browser: the link of `coma-gen ui` shows the columns for comparing runs."""
# ruff: noqa: F811 - the server is that of test_rest.py

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from chromium import browser, find_browser

from coma_gen.tracking.run_record import Experiment, sync_complete
from coma_gen.tracking.store import Store
from coma_gen.tracking.view import RUNS_PAGE
from tracking.test_rest import server  # noqa: F401 - pytest finds it here

HEADS = "[...document.querySelectorAll('.ag-header-cell')].map(head => head.innerText.trim())"
CHARTS = "[...document.querySelectorAll('.js-plotly-plot')]"
BARS = f"{CHARTS}.filter(chart => chart.querySelector('.barlayer .bars')).length"
LINES = f"{CHARTS}.filter(chart => chart.querySelector('.scatterlayer .lines')).length"


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome here")
def test_the_link_shows_figures_and_draws_them_as_bars_beside_curves(
    store: Store, make_experiment: Callable[..., Experiment], server: str, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        sync_complete(store, make_experiment(f"{name}-1"))
    with browser(str(find_browser()), tmp_path) as chromium:
        page = chromium.page(f"{server}/{RUNS_PAGE}", width=1440, height=900)
        for name in ("bits", "changed"):
            page.wait(f"{HEADS}.includes('{name}')")
        assert "Source" not in page.value(HEADS)
        page.close()
        page = chromium.page(f"{server}/{RUNS_PAGE}&compareRunsMode=CHART", width=1440, height=900)
        page.wait(f"{BARS} > 0 && {LINES} > 0")
        page.close()
