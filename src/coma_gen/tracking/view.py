"""Display of the experiment in MLflow: its description, primary metric, and a saved view with columns.

MLflow stores a view in the experiment tag `mlflow.sharedViewState.<name>` and opens it for links that end
with `viewStateShareKey=<name>`; a link alone can sort and filter but not select columns. The view appears in
MLflow's list of saved views, to which users add their own. Existing tags are not changed, since users may
have edited them.
"""

from __future__ import annotations

import json
from typing import Any

from coma_gen.evaluation.headline import ABOUT, RANKED_BY

VIEW = "coma-gen-3"
"""Increase the number when the view changes, since existing views in a store are not replaced."""
RUNS_PAGE = f"#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
"""MLflow's list of runs of experiment 1, which is ours in a store created by this project."""
CHANGED_TAG, CORPUS_TAG = "changed", "corpus"
NOTE_TAG = "mlflow.note.content"
CREATED = 1767225600000
"""1 January 2026 in milliseconds: a constant, so that the tags are the same everywhere."""
COLUMNS = {
    "attributes.`Run Name`": 125,
    "runDateAndNestInfo": 135,
    f"tags.`{CHANGED_TAG}`": 280,
    f"metrics.`{RANKED_BY}`": 80,
    "metrics.`ngram`": 75,
    "metrics.`validation`": 90,
    "metrics.`overlap`": 85,
    "metrics.`training_seconds`": 130,
    f"tags.`{CORPUS_TAG}`": 110,
}
"""Column of the runs table -> width in pixels, from left to right; together they fit a window of 1440."""
ALWAYS_SHOWN = 2
"""Number of leading columns that MLflow always shows."""
RESULT = "Result"
SECTIONS = {RESULT: True, "Model metrics": True, "loss": True, "optimizer": False, "System metrics": False}
"""Section of charts -> whether it is expanded: ours first, then those that MLflow derives from metrics."""
LINE = {
    "type": "LINE",
    "lineSmoothness": 0,
    "scaleType": "linear",
    "xAxisKey": "step",
    "xAxisScaleType": "linear",
    "yAxisKey": "metric",
    "yAxisExpressions": [],
    "range": {},
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}
CHARTS: dict[str, dict[str, Any]] = {
    RANKED_BY: {"type": "BAR"},
    "loss/validation": LINE,
    "loss/train": LINE,
    "validation": {"type": "BAR"},
    "overlap": {"type": "BAR"},
    "training_seconds": {"type": "BAR"},
}
"""The charts of our section, three per row."""


def experiment_tags() -> dict[str, str]:
    """Returns the tags of the experiment: its description, primary metric and view."""
    return {
        NOTE_TAG: _note(),
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": RANKED_BY,
        "mlflow.experiment.primaryMetric.greaterIsBetter": "False",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(
            {"name": "Headline", "createdAt": CREATED, "updatedAt": CREATED, "state": json.dumps(_state())}
        ),
    }


def _note() -> str:
    rows = "\n".join(f"| `{name}` | {about} |" for name, about in ABOUT.items())
    return f"""Piano music, continued: each run is one `dvc repro` or `dvc exp run` of the pipeline.

**Compare runs by `{RANKED_BY}`**: the bits that the model needs to encode a note of the test split. Lower is
better, also across tokenizers. Only runs on the same corpus are comparable. The tag `{CHANGED_TAG}` lists the
settings that differ from the committed params.yaml; the description of a run says how to reproduce it.

| figure | meaning |
|---|---|
{rows}
| `tokens_per_second`, `training_seconds` | on the training machine; absent if restored from a cache |

The curves are `loss/...` and `optimizer/...`; all other figures are in the run's artifacts, in `metrics`.
"""


def _state() -> dict[str, Any]:
    """Returns the view in the format of MLflow 3.17: best run first, and the columns and charts above."""
    return {
        "searchFilter": "",
        "orderByKey": f"metrics.`{RANKED_BY}`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(COLUMNS)[ALWAYS_SHOWN:],
        "columnOrder": [*COLUMNS, "duration"],
        "columnWidths": COLUMNS,
        "isAccordionReordered": True,
        "compareRunSections": [
            {"uuid": f"section-{name}", "name": name, "display": is_open, "isReordered": False}
            for name, is_open in SECTIONS.items()
        ],
        "compareRunCharts": [_chart(name, settings) for name, settings in CHARTS.items()],
    }


def _chart(metric: str, settings: dict[str, Any]) -> dict[str, Any]:
    ids = {"uuid": f"chart-{metric}", "metricSectionId": f"section-{RESULT}"}
    named = {"metricKey": metric, "displayName": metric, "deleted": False, "isGenerated": False}
    return {**ids, **named, "runsCountToCompare": 10, **settings}
