"""Collects the content of the page that compares two runs (`report.comparison`)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from coma_gen.config.yaml_reader import parse_yaml
from coma_gen.evaluation.headline import ABOUT
from coma_gen.evaluation.paired_bootstrap import Difference
from coma_gen.experiments.ablation_table import RESAMPLES, format_difference
from coma_gen.experiments.dvc_experiments import has_run
from coma_gen.experiments.overview import NEEDED, ScoredRun, build_row, choose_run, find_scored_runs
from coma_gen.report.comparison import Comparison, Side, build_comparison
from coma_gen.report.stage import read_content
from coma_gen.report.tables import Table, format_value

FILES = ("metrics/curve.csv", "metrics/download.json")
SAMPLES = "data/samples"
MAX_SAMPLES = 2
"""Maximum number of unprompted samples and of continuations, since a page with sound is large."""


def write_comparison(
    root: Path, first: str, second: str, destination: Path, *, audio: bool = True, resamples: int = RESAMPLES
) -> None:
    """Writes a page that compares two runs of a checkout.

    Args:
        root: The checkout.
        first: Name of the baseline run, as in `overview`.
        second: Name of the run to compare with it.
        destination: HTML file to write.
        audio: Whether to render samples as sound.
        resamples: Number of bootstrap resamples.

    Raises:
        UserError: If a run does not exist, was not scored, or lacks its samples.
    """
    found, left_out = find_scored_runs(root)
    runs = [choose_run(name, found, left_out) for name in (first, second)]
    row = build_row(runs[1], runs[0], resamples=resamples)
    params = [
        (key, _format_param(runs[0].params.get(key)), _format_param(row.changes[key])) for key in row.changes
    ]
    names = [name for name in ABOUT if any(name in run.figures for run in runs)]
    figures = [(name, *(format_value(run.figures.get(name)) for run in runs), ABOUT[name]) for name in names]
    build_comparison(
        destination,
        Comparison(
            sides=(_read_side(runs[0], audio=audio), _read_side(runs[1], audio=audio)),
            verdict=_compose_verdict(first, second, row.difference, row.note),
            params=Table("Params that differ.", ("param", first, second), params),
            figures=Table("Headline figures.", ("figure", first, second, "meaning"), figures, [0]),
        ),
    )


def _read_side(run: ScoredRun, *, audio: bool) -> Side:
    """Reads the curve and samples of a run; no samples if the stage did not run with its params."""
    with tempfile.TemporaryDirectory(prefix="coma-gen-run-") as temporary:
        folder = Path(temporary)
        for path in FILES:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(run.files.text(path), encoding="utf-8")
        params = parse_yaml(run.files.text("params.yaml"), name="params.yaml")
        if has_run(parse_yaml(run.lock, name="dvc.lock"), params, NEEDED["sample"]):
            run.files.copy_folder(SAMPLES, folder / SAMPLES)
        content = read_content(
            metrics=folder / "metrics",
            samples=folder / SAMPLES,
            evaluation=folder / "none",
            audio=audio,
            max_samples=MAX_SAMPLES,
        )
    return Side(run.name, content)


def _compose_verdict(first: str, second: str, difference: Difference | None, note: str) -> str:
    if difference is None:
        return f"The scores are not comparable: {note or 'it is the same run'}."
    text = f"{second} differs by {format_difference(difference)} bits per note from {first} on the test split"
    if difference.low is None or difference.high is None:
        return f"{text}; with one composition, there is no confidence interval."
    if difference.low <= 0 <= difference.high:
        return f"{text}: the 95% interval contains 0, so this test split does not show which is better."
    return f"{text}: significantly {'better' if difference.mean < 0 else 'worse'} at the 95% level."


def _format_param(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
