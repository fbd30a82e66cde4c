"""The experiment's settings for MLflow's page."""

from __future__ import annotations

import json
import subprocess
import sys

from coma_gen.evaluation.headline import ABOUT
from coma_gen.tracking.figures import SPEED_FIGURES
from coma_gen.tracking.run_sync import CURVES
from coma_gen.tracking.store import Store, open_store
from coma_gen.tracking.view import CHANGED_TAG, RUNS_PAGE, VIEW, experiment_tags

STATE = f"mlflow.sharedViewState.{VIEW}"


def test_a_new_store_has_them(store: Store) -> None:
    tags = store.client.get_experiment(store.experiment_id).tags
    assert {name: tags[name] for name in experiment_tags()} == experiment_tags()
    assert tags["mlflow.note.content"].startswith("Piano music, continued")
    assert all(f"`{name}`" in tags["mlflow.note.content"] for name in ABOUT)


def test_an_older_store_gets_them_and_a_persons_own_words_stay(store: Store) -> None:
    store.client.set_experiment_tag(store.experiment_id, "mlflow.note.content", "ours")
    store.client.delete_experiment_tag(store.experiment_id, STATE)
    open_store(store.home)
    tags = store.client.get_experiment(store.experiment_id).tags
    assert tags["mlflow.note.content"] == "ours"
    assert tags[STATE] == experiment_tags()[STATE]


def test_the_link_opens_the_view_and_the_view_names_what_runs_have() -> None:
    assert f"viewStateShareKey={VIEW}" in RUNS_PAGE
    view = json.loads(experiment_tags()[STATE])
    state = json.loads(view["state"])
    metrics = set(ABOUT) | set(SPEED_FIGURES)
    columns = {column.split("`")[1] for column in state["selectedColumns"]}
    assert columns - metrics == {CHANGED_TAG, "corpus"}
    assert set(state["selectedColumns"]) < set(state["columnOrder"])
    charts = {chart["metricKey"]: chart["type"] for chart in state["compareRunCharts"]}
    assert {name for name, kind in charts.items() if kind == "LINE"} <= set(CURVES.values())
    assert {name for name, kind in charts.items() if kind == "BAR"} <= metrics
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= sections


def test_all_columns_are_in_a_window_of_1440() -> None:
    state = json.loads(json.loads(experiment_tags()[STATE])["state"])
    menu_and_margins, boxes_to_tick = 254, 73
    assert sum(state["columnWidths"].values()) <= 1440 - menu_and_margins - boxes_to_tick


def test_no_mlflow_is_needed_to_say_where_the_page_is() -> None:
    program = "import sys, coma_gen.tracking.view; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
