"""How MLflow's page shows the experiment: its description, its first figure, and a view with columns chosen.

MLflow keeps a view as a tag of the experiment, `mlflow.sharedViewState.<name>`, and opens it for a link that
ends with `viewStateShareKey=<name>`; a link alone can sort and filter, but choose no columns. The view stands
in MLflow's list of saved views, where people add their own. What is there already stays as it is, since
anybody may have changed it.
"""

from __future__ import annotations

import json
from typing import Any

from coma_gen.evaluation.headline import ABOUT, RANKED_BY

VIEW = "coma-gen-3"
"""Another number whenever the view changes: what a store has of the old one stays."""
RUNS_PAGE = f"#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
"""Where MLflow lists the runs of a store's first experiment, which is ours in a store of our own."""
CHANGED_TAG, CORPUS_TAG = "changed", "corpus"
NOTE_TAG = "mlflow.note.content"
CREATED = 1767225600000
"""1 January 2026, in milliseconds: the same tags wherever they are made."""
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
"""Column of the runs table -> its width, in pixels, from left to right: all fit a window of 1440."""
ALWAYS_SHOWN = 2
"""The first of them, which MLflow shows whether or not they are chosen."""
RESULT = "Result"
SECTIONS = {RESULT: True, "Model metrics": True, "loss": True, "optimizer": False, "System metrics": False}
"""Section of charts -> whether it is open: ours first, then those that MLflow makes of the metrics' names."""
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
"""What stands in our section, three in a row."""


def experiment_tags() -> dict[str, str]:
    """What the experiment carries, for whoever opens MLflow."""
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

**Compare runs by `{RANKED_BY}`**: the bits that the model needs to write down a note of the test split. Fewer
are better, and it holds across tokenizers. Only runs of one corpus can be compared. The tag `{CHANGED_TAG}`
says what a run has otherwise than the committed params.yaml; its description, how to have it again.

| figure | what it says |
|---|---|
{rows}
| `tokens_per_second`, `training_seconds` | of the machine that trained; none where a cache had the model |

The curves are `loss/...` and `optimizer/...`; all other figures lie in each run's artifacts, below metrics.
"""


def _state() -> dict[str, Any]:
    """The view as MLflow 3.17 keeps it: figures side by side, the best run first, charts by what counts."""
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
