"""Markdown tables that compare finished runs: likelihood, music measures, memorization, and origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coma_gen.config.yaml_reader import parse_yaml
from coma_gen.core.errors import Fault, UserError
from coma_gen.evaluation.headline import count_telling
from coma_gen.experiments.ablation_table import compare_runs, format_difference
from coma_gen.experiments.dvc_experiments import STAGES, has_run
from coma_gen.experiments.run_files import RunFiles

BITS = "bits_per_note_10ms"
RESAMPLES = 10_000
BASELINES = {
    "uniform": "uniform",
    "unigram": "unigram",
    "bigram": "bigram",
    "kneser_ney": "Kneser-Ney {}-gram",
}
LIKELIHOOD = """Test: {notes:,} notes; performances: {performances:,}. Lower is better; brackets are 95%
confidence intervals from a bootstrap over compositions (not over training seeds), if there are at least two.
Nats per token are comparable only between models with the same tokenizer.
"""
MUSIC = """Music: overlap of the distributions of samples and test excerpts; 1 is identical. Real is train
against test, with the 5th percentile of equally small draws in brackets: samples are distinguishable from
real music only if their overlap is below that, or their divergence (not shown) above the 95th percentile.
Samples: {samples}; excerpts: {train} of train and {test} of test; each of {seconds:g} s.
"""
MEMORIZATION = """Memorization: the longest passage, in notes, that also occurs in the train split in any
transposition; for test excerpts, the expected longest among as many as there are samples in the row below.
"""
ORIGIN = """Made from: base commit of the run, SHA-256 of its dvc.lock, MD5 of the model in dvc.lock.
"""
SCORED = ("train", "baseline", "evaluate", "sample")
"""The stages whose metrics are shown."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that completed all stages.

    Attributes:
        name: Name of its row.
        params: All settings.
        metrics: Metrics of the stages `SCORED`.
        files: Access to its files.
        lock: SHA-256 of dvc.lock.
        weights: MD5 of data/model in dvc.lock.
    """

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    files: RunFiles
    lock: str
    weights: str


def read_run(name: str, files: RunFiles) -> FinishedRun:
    """Reads a finished run.

    Args:
        name: Name of its rows.
        files: Access to its files.

    Raises:
        UserError: If a file is missing, or if the stages did not run with the current params and each other's
            current outputs, as after `dvc repro train` alone.
    """
    text = files.text("dvc.lock")
    lock = parse_yaml(text, name=f"{name}: dvc.lock")
    params = parse_yaml(files.text("params.yaml"), name=f"{name}: params.yaml")
    if not has_run(lock, params, tuple(dict.fromkeys([*STAGES, *SCORED]))):
        rule = "must show that every stage ran with these params on the outputs of the stages before it"
        raise UserError(Fault(f"{name}: dvc.lock", rule, "", "run `dvc repro`"))
    metrics = {stage: read_metrics(files, stage, lock, name=name) for stage in SCORED}
    outs = map_outputs(lock)
    return FinishedRun(
        name=name,
        params=params,
        metrics=metrics,
        files=files,
        lock=hashlib.sha256(text.encode()).hexdigest(),
        weights=outs["data/model"].removesuffix(".dir"),
    )


def map_outputs(lock: Mapping[str, Any]) -> dict[str, str]:
    """Maps path -> digest of all outputs in a dvc.lock."""
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


def read_metrics(files: RunFiles, stage: str, lock: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Reads metrics/<stage>.json of a run whose dvc.lock contains the stage.

    Raises:
        UserError: It is missing, or does not match its digest in dvc.lock.
    """
    path = f"metrics/{stage}.json"
    content = files.text(path)
    if hashlib.md5(content.encode(), usedforsecurity=False).hexdigest() != map_outputs(lock)[path]:
        rule = "must match its digest in dvc.lock"
        raise UserError(Fault(f"{name}: {path}", rule, "other content", "run `dvc repro`"))
    found: dict[str, Any] = json.loads(content)
    return found


def markdown(runs: Sequence[FinishedRun], *, resamples: int = RESAMPLES) -> str:
    """Formats the tables of runs that were scored on the same music, with the baselines of the first run.

    Raises:
        UserError: If they were scored on different music, or their samples compared with different music.
    """
    for run in runs[1:]:
        if _find(run, "sample", "excerpts") != _find(runs[0], "sample", "excerpts"):
            rule = f"must be compared with the same number of the same excerpts as those of {runs[0].name}"
            remedy = "name runs with the same sample section"
            raise UserError(Fault(f"{run.name}: samples", rule, "others", remedy))
    parts = (
        _format_likelihood(runs, resamples),
        _format_music(runs),
        _format_memorization(runs),
        _format_origin(runs),
    )
    return "\n\n".join("\n".join(part) for part in parts)


def _find(run: FinishedRun, *path: str) -> Any:
    """Looks up a metric; None if it is missing, for example because too few samples have notes."""
    part: Any = run.metrics
    for name in path:
        part = part.get(name) if isinstance(part, Mapping) else None
    return part


def _format_fixed(value: Any, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _format_likelihood(runs: Sequence[FinishedRun], resamples: int) -> Iterator[str]:
    yield LIKELIHOOD.format(**_find(runs[0], "evaluate", "test"))
    head = ("", "parameters", "tokens seen", "bits per note at 10 ms: validation", "test", "nats per token")
    yield from _format_head(head)
    order = runs[0].params["baseline"]["kneser_ney_order"]
    for key, words in BASELINES.items():
        scores = [_find(runs[0], "baseline", split, key) or {} for split in ("validation", "test")]
        yield _format_row(words.format(order), "", "", *_format_scores(*scores))
    for run in runs:
        counts = (_format_fixed(_find(run, "train", name), 0) for name in ("parameters", "tokens"))
        scores = [_find(run, "evaluate", split) or {} for split in ("validation", "test")]
        yield _format_row(run.name, *counts, *_format_scores(*scores))
    if len(runs) > 1:
        yield ""
    for run in runs[1:]:
        yield f"{run.name} minus {runs[0].name}, test: {_describe_difference(run, runs[0], resamples)}.  "


def _format_scores(validation: Mapping[str, Any], test: Mapping[str, Any]) -> tuple[str, str, str]:
    interval = ""
    if f"{BITS}_low" in test:
        interval = f" [{test[f'{BITS}_low']:.2f}, {test[f'{BITS}_high']:.2f}]"
    return (
        _format_fixed(validation.get(BITS)),
        _format_fixed(test.get(BITS)) + interval,
        _format_fixed(test.get("nll_per_token"), 3),
    )


def _describe_difference(run: FinishedRun, first: FinishedRun, resamples: int) -> str:
    """The difference in test bits per note, with the interval of a paired bootstrap."""
    if run.params["tokenizer"]["pedal"] != first.params["tokenizer"]["pedal"]:
        return "not comparable, because their tokenizers treat the pedal differently"
    difference = compare_runs(run.files.performances(), first.files.performances(), resamples=resamples)
    if difference is None:
        rule = f"must be scored on the same test performances as {first.name}"
        raise UserError(Fault(run.name, rule, "others", "name runs of one corpus and split"))
    return f"{format_difference(difference)} bits per note"


def _format_music(runs: Sequence[FinishedRun]) -> Iterator[str]:
    samples = " and ".join(dict.fromkeys(_format_fixed(_find(run, "sample", "samples"), 0) for run in runs))
    yield MUSIC.format(**{**_find(runs[0], "sample", "excerpts"), "samples": samples})
    yield from _format_head(("", "real", *(run.name for run in runs)))
    measures = tuple(_find(runs[0], "sample", "music") or ())
    for measure in measures:
        overlaps = [_find_overlap(run, measure) for run in runs]
        low = _format_fixed(overlaps[0].get("of_real_low"))
        real = _format_fixed(overlaps[0].get("of_real")) + (f" ({low})" if low else "")
        yield _format_row(
            measure.replace("_", " "), real, *(_format_fixed(of.get("with_test")) for of in overlaps)
        )
    if measures:
        yield _format_row(
            "measures that distinguish samples", "", *(_format_telling(run, measures) for run in runs)
        )


def _find_overlap(run: FinishedRun, measure: str) -> Mapping[str, Any]:
    return _find(run, "sample", "music", measure, "overlap") or {}


def _format_telling(run: FinishedRun, measures: Sequence[str]) -> str:
    """Counts the measures by which samples are distinguishable from real music."""
    count, total = count_telling({name: _find(run, "sample", "music", name) or {} for name in measures})
    return f"{count} of {total}" if total else ""


def _format_memorization(runs: Sequence[FinishedRun]) -> Iterator[str]:
    yield MEMORIZATION
    yield from _format_head(("", "pieces", "mean", "longest"))
    real = _find(runs[0], "sample", "memorization", "test") or {}
    rows = [("test excerpts", real, real.get("longest_notes_of_as_many"))]
    for run in runs:
        ours = _find(run, "sample", "memorization", "samples") or {}
        rows.append((run.name, ours, ours.get("longest_notes")))
    for name, of, longest in rows:
        yield _format_row(
            name,
            _format_fixed(of.get("pieces"), 0),
            _format_fixed(of.get("mean_notes"), 1),
            _format_fixed(longest, 1),
        )


def _format_origin(runs: Sequence[FinishedRun]) -> Iterator[str]:
    yield ORIGIN
    yield from _format_head(("", "commit", "dvc.lock", "data/model"))
    for run in runs:
        yield _format_row(
            run.name, *(f"`{digest[:12]}`" for digest in (run.files.began_at, run.lock, run.weights))
        )


def _format_head(names: Sequence[str]) -> tuple[str, str]:
    return _format_row(*names), f"| --- |{' --: |' * (len(names) - 1)}"


def _format_row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
