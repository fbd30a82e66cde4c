"""The `report` stage: read the outputs of the other stages and build the report page."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from coma_gen.config.schema import ReportParams
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import read_json
from coma_gen.midi.io import read_notes
from coma_gen.report.content import ReportContent, SampleView
from coma_gen.report.page import build_report

TITLE = "Piano music, continued"
STAGES = ("download", "split", "fit_tokenizer", "shard", "train", "baseline", "evaluate", "sample")
CURVE = "curve.csv"
SAMPLES = "samples.json"


def write_report(
    params: ReportParams,
    *,
    metrics: Path,
    samples: Path,
    evaluation: Path,
    destination: Path,
    model_digest: str | None = None,
) -> None:
    """Writes `destination`/index.html; images and sounds are embedded in the page and also saved beside it.

    Missing files are omitted from the page. Only the files listed here are read.

    Args:
        params: The `report` section of params.yaml.
        metrics: Folder with <stage>.json for each of `STAGES`, and the learning curve.
        samples: Output folder of the sample stage: <name>.mid and `SAMPLES`.
        evaluation: Output folder of the evaluate stage: parquet tables.
        destination: Folder to replace.
        model_digest: Digest of the evaluated model, by which its MLflow runs are tagged.

    Raises:
        UserError: If a file is damaged, or `destination` contains something other than a report.
    """
    content = read_content(
        metrics=metrics,
        samples=samples,
        evaluation=evaluation,
        audio=params.audio,
        max_samples=params.max_samples,
        model_digest=model_digest,
    )
    build_report(destination, content=content)


def read_content(
    *,
    metrics: Path,
    samples: Path,
    evaluation: Path,
    audio: bool,
    max_samples: int,
    model_digest: str | None = None,
) -> ReportContent:
    """Collects the content of a report from the files that exist in these folders.

    Raises:
        UserError: If a file is damaged.
    """
    paths = {stage: metrics / f"{stage}.json" for stage in STAGES}
    figures = {stage: read_json(path) for stage, path in paths.items() if path.exists()}
    download = figures.get("download")
    corpus = download.get("corpus") if isinstance(download, dict) else None
    listed, views = _read_samples(samples, max_samples)
    return ReportContent(
        title=TITLE,
        corpus=str(corpus or "unnamed"),
        metrics=figures,
        curve=_read_csv(metrics / CURVE),
        samples=views,
        audio=audio,
        model_digest=model_digest,
        performances=_read_table(evaluation / "performances.parquet"),
        composers=_read_table(evaluation / "composers.parquet"),
        contexts=_read_table(evaluation / "contexts.parquet"),
        windows=_read_table(evaluation / "windows.parquet"),
        left_out=listed - len(views),
    )


def _read_csv(path: Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file; an empty list if the file does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read_table(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a parquet file; an empty list if the file does not exist."""
    if not path.exists():
        return []
    try:
        rows = pd.read_parquet(path).to_dict(orient="records")
    except (OSError, ValueError) as error:
        rule = "must be a table in parquet"
        raise UserError(Fault(str(path), rule, str(error).splitlines()[0], "run `dvc repro`")) from None
    return [{str(name): value for name, value in row.items()} for row in rows]


def _read_samples(folder: Path, max_samples: int) -> tuple[int, list[SampleView]]:
    """Reads up to `max_samples` unprompted samples and as many continuations; also returns the total."""
    path = folder / SAMPLES
    content = read_json(path) if path.exists() else {"settings": {}, "samples": []}
    views, of_kind = list[SampleView](), Counter[bool]()
    try:
        for entry in content["samples"]:
            kind = entry.get("prompt_seconds") is None
            of_kind[kind] += 1
            if of_kind[kind] <= max_samples:
                views.append(_read_sample(folder, entry, content["settings"]))
    except (KeyError, TypeError, AttributeError):
        rule = "must list settings, and samples with a name each"
        raise UserError(Fault(str(path), rule, "something else", "run `dvc repro` to sample again")) from None
    return of_kind.total(), views


def _read_sample(folder: Path, entry: dict[str, Any], settings: dict[str, Any]) -> SampleView:
    path = folder / f"{entry['name']}.mid"
    if not path.is_file():
        raise UserError(Fault(str(path), f"is named in {SAMPLES} and must exist", "no such file"))
    source = ", ".join(str(entry[key]) for key in ("composer", "title") if entry.get(key))
    own_settings = {key: value for key, value in entry.items() if key not in ("name", "composer", "title")}
    return SampleView(
        name=str(entry["name"]),
        notes=read_notes(path),
        midi=path.read_bytes(),
        prompt_seconds=entry.get("prompt_seconds"),
        settings=own_settings | settings,
        source=source,
    )
