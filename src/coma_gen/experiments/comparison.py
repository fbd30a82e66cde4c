"""Two runs on one page: gathers what `report.comparison` shows of them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from coma_gen.config.yaml_reader import parse_yaml
from coma_gen.evaluation.headline import ABOUT
from coma_gen.evaluation.paired_bootstrap import Difference
from coma_gen.experiments.ablation_table import RESAMPLES, shown_difference
from coma_gen.experiments.dvc_experiments import has_run
from coma_gen.experiments.overview import NEEDED, Standing, chosen, row_of, standings
from coma_gen.report.comparison import Comparison, Side, build_comparison
from coma_gen.report.stage import read_content
from coma_gen.report.tables import Table, format_value

FILES = ("metrics/curve.csv", "metrics/download.json")
SAMPLES = "data/samples"
MOST_SAMPLES = 2
"""Of music from nothing and of continuations each: a page with sound is large."""


def write_comparison(
    root: Path, first: str, second: str, destination: Path, *, audio: bool = True, resamples: int = RESAMPLES
) -> None:
    """Writes a page about two runs of a checkout, the first being the baseline.

    Args:
        root: the checkout.
        first: a run, as `overview` names it.
        second: the run that is held against it.
        destination: the HTML file.
        audio: whether samples are put into the page as sound too.
        resamples: draws of the confidence.

    Raises:
        UserError: a run is not there, was not scored, or lacks its samples.
    """
    found, left_out = standings(root)
    runs = [chosen(name, found, left_out) for name in (first, second)]
    row = row_of(runs[1], runs[0], resamples=resamples)
    params = [(key, _written(runs[0].params.get(key)), _written(row.changes[key])) for key in row.changes]
    names = [name for name in ABOUT if any(name in run.figures for run in runs)]
    figures = [(name, *(format_value(run.figures.get(name)) for run in runs), ABOUT[name]) for name in names]
    build_comparison(
        destination,
        Comparison(
            sides=(_side(runs[0], audio=audio), _side(runs[1], audio=audio)),
            verdict=_verdict(first, second, row.difference, row.note),
            params=Table("Of all params, those that differ.", ("param", first, second), params),
            figures=Table("The headline.", ("figure", first, second, "what it is"), figures, [0]),
        ),
    )


def _side(run: Standing, *, audio: bool) -> Side:
    """A run's curve and samples; none of the samples where the stage did not run under its params."""
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
            max_samples=MOST_SAMPLES,
        )
    return Side(run.name, content)


def _verdict(first: str, second: str, difference: Difference | None, note: str) -> str:
    if difference is None:
        return f"Their bits per note do not compare: {note or 'it is the same run'}."
    text = f"{second} costs {shown_difference(difference)} bits per note against {first} on the test split"
    if difference.low is None or difference.high is None:
        return f"{text}; one composition, so there is no interval."
    if difference.low <= 0 <= difference.high:
        return f"{text}: its 95% interval contains 0, so this music does not tell which is better."
    return f"{text}, 95%: {'better' if difference.mean < 0 else 'worse'} on such music."


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
