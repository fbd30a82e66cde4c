"""The table of an ablation: one row per cell, compared with the reference cell, with confidence intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coma_gen.core.errors import Fault, UserError
from coma_gen.evaluation.bootstrap import ratio_interval
from coma_gen.evaluation.paired_bootstrap import Difference, paired_difference
from coma_gen.experiments.ablation import Ablation

BITS = "bits_per_note_10ms"
RESAMPLES = 10_000
ERRORS = "onset, duration error (ms)"
"""The column that is shown only where cells differ in it."""
HEAD = (
    "cell",
    "parameters",
    "tokens seen",
    ERRORS,
    "tokens per note",
    "tokens/CPU s",
    "validation",
    "test",
    "test, windowed",
    "test, against {}",
)


@dataclass(frozen=True)
class RunFigures:
    """The figures of one run.

    Attributes:
        seed: Training seed.
        parameters, tokens: Size of the model; training tokens.
        onset_error, duration_error: Round-trip errors of the tokenizer on validation, RMS in milliseconds.
        tokens_per_note: Tokens per note in the train split.
        tokens_per_cpu_second: Training speed, or None if unknown.
        validation, test, windowed: Bits per note at 10 ms: both splits by the reference protocol, and the
            test split by the windowed protocol.
        performances: Evaluation results by performance of both splits.
    """

    seed: int
    parameters: int
    tokens: int
    onset_error: float
    duration_error: float
    tokens_per_note: float
    tokens_per_cpu_second: float | None
    validation: float
    test: float
    windowed: float
    performances: pd.DataFrame


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over the seeds; the deviation of a single seed is None."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        cell, why: Name and description of the cell.
        seeds: Seeds that have run.
        missing: Seed -> status of each run without results.
        figures: Name -> mean and deviation; empty if no seed has run.
        is_comparable: Whether bits are comparable with the reference; they are not if the tokenizer treats
            the pedal differently, since it then encodes other music.
        difference: Difference in test bits to the reference cell; None for the reference, if not comparable,
            or if there is no common seed.
    """

    cell: str
    why: str
    seeds: list[int]
    missing: dict[int, str]
    figures: dict[str, Spread]
    is_comparable: bool
    difference: Difference | None


def collect_run_figures(
    seed: int, metrics: Mapping[str, Mapping[str, Any]], performances: pd.DataFrame, speed: float | None
) -> RunFigures:
    """Collects the figures of one run.

    Args:
        seed: Training seed.
        metrics: Metrics of the stages fit_tokenizer, shard, train and evaluate.
        performances: Evaluation results by performance.
        speed: Tokens per CPU second, or None if unknown.
    """
    train, shard, evaluate = metrics["train"], metrics["shard"]["train"], metrics["evaluate"]
    errors = metrics["fit_tokenizer"]["fidelity"]["validation"]
    return RunFigures(
        seed=seed,
        parameters=train["parameters"],
        tokens=train["tokens"],
        onset_error=errors["onset_error_ms"]["rms"],
        duration_error=errors["duration_error_ms"]["rms"],
        tokens_per_note=shard["tokens"] / shard["notes"],
        tokens_per_cpu_second=speed,
        validation=evaluate["validation"][BITS],
        test=evaluate["test"][BITS],
        windowed=evaluate["test"]["windowed"][BITS],
        performances=performances,
    )


def rows(
    ablation: Ablation,
    results: Mapping[str, RunFigures],
    statuses: Mapping[str, str],
    *,
    resamples: int = RESAMPLES,
) -> list[Row]:
    """Builds a row for every cell, in the order of the ablation.

    Args:
        ablation: The ablation.
        results: Name of a run -> its figures, for finished runs.
        statuses: Name of a run -> status, for other runs.
        resamples: Number of bootstrap resamples.
    """
    return [_build_row(ablation, cell, results, statuses, resamples) for cell in ablation.cells]


def _build_row(
    ablation: Ablation,
    cell: str,
    results: Mapping[str, RunFigures],
    statuses: Mapping[str, str],
    resamples: int,
) -> Row:
    runs, others = ([run for run in ablation.runs if run.cell == name] for name in (cell, ablation.reference))
    done, reference = ([results[run.name] for run in of if run.name in results] for of in (runs, others))
    is_comparable = runs[0].params["tokenizer"]["pedal"] == others[0].params["tokenizer"]["pedal"]
    is_compared = is_comparable and cell != ablation.reference
    return Row(
        cell=cell,
        why=ablation.cells[cell],
        seeds=[run.seed for run in done],
        missing={run.seed: statuses.get(run.name, "not queued") for run in runs if run.name not in results},
        figures=_summarize_figures(done),
        is_comparable=is_comparable,
        difference=compare_seeds(done, reference, resamples=resamples) if is_compared else None,
    )


def compare_seeds(
    ours: Sequence[RunFigures], theirs: Sequence[RunFigures], *, resamples: int
) -> Difference | None:
    """Computes the paired difference in test bits per note at 10 ms over the common seeds; None without any.

    Raises:
        UserError: If they were scored on different music.
    """
    by_seed = {run.seed: run for run in theirs}
    pairs = [(run, by_seed[run.seed]) for run in ours if run.seed in by_seed]
    if not pairs:
        return None
    tables = [(select_test(one.performances), select_test(other.performances)) for one, other in pairs]
    first = tables[0][0]
    for table in (table for pair in tables for table in pair):
        if not table[["midi_filename", "notes"]].equals(first[["midi_filename", "notes"]]):
            remedy = "remove the experiments of one kind, and queue them again"
            raise UserError(Fault("test", "must be the same performances in all cells", "others", remedy))
    return paired_difference(
        np.stack([compute_bits(one) for one, _ in tables]),
        np.stack([compute_bits(other) for _, other in tables]),
        first["notes"].to_numpy(np.float64),
        list(zip(first["composer"], first["title"], strict=True)),
        resamples=resamples,
    )


def compare_runs(ours: pd.DataFrame, theirs: pd.DataFrame, *, resamples: int) -> Difference | None:
    """Computes the difference of two runs in test bits per note at 10 ms, with the interval of a paired
    bootstrap over compositions. None if they were scored on different music.

    Args:
        ours: Evaluation results by performance.
        theirs: The same of the run to subtract.
        resamples: Number of bootstrap resamples.
    """
    one, other = select_test(ours), select_test(theirs)
    if not one[["midi_filename", "notes"]].equals(other[["midi_filename", "notes"]]):
        return None
    more, notes = compute_bits(one) - compute_bits(other), other["notes"].to_numpy(np.float64)
    works = list(zip(other["composer"], other["title"], strict=True))
    interval = ratio_interval(more, notes, works, resamples=resamples)
    low, high = interval or (None, None)
    return Difference(float(more.sum() / notes.sum()), low, high)


def select_test(table: pd.DataFrame) -> pd.DataFrame:
    """Selects the rows of the test split, sorted by file name."""
    return table[table["split"] == "test"].sort_values("midi_filename", ignore_index=True)


def compute_bits(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Computes the bits (N,) of each performance at the common resolution of 10 ms."""
    nats, open_bits = (table[name].to_numpy(np.float64) for name in ("nats", "resolution_bits"))
    bits: npt.NDArray[np.float64] = nats / np.log(2) + open_bits
    return bits


def _summarize_figures(done: Sequence[RunFigures]) -> dict[str, Spread]:
    names = [name for name in RunFigures.__dataclass_fields__ if name not in ("seed", "performances")]
    found = {name: [getattr(run, name) for run in done if getattr(run, name) is not None] for name in names}
    return {
        name: Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
        for name, values in found.items()
        if values
    }


def markdown(ablation: Ablation, table: Sequence[Row]) -> str:
    """Formats the table as Markdown, with a description of its columns and the missing runs."""
    lines = [HEAD, ("---",) + ("--:",) * (len(HEAD) - 1), *(_format_cells(row) for row in table)]
    column = HEAD.index(ERRORS)
    if len({line[column] for line in lines[2:]} - {""}) < 2:
        lines = [line[:column] + line[column + 1 :] for line in lines]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines).format(ablation.reference)
    gaps = [
        f"- {ablation.name}-{row.cell}-{seed}: {what}" for row in table for seed, what in row.missing.items()
    ]
    seeds = len({run.seed for run in ablation.runs})
    notes = [
        f"Bits per note at 10 ms, lower is better: mean ± standard deviation over {seeds} seeds; in brackets",
        f"the 95% confidence interval of the difference to {ablation.reference}, by a paired bootstrap over",
        "compositions and seeds.",
    ]
    if not all(row.is_comparable for row in table):
        notes += ["Other music: the pedal is treated differently, so bits per note are not comparable."]
    missing = [f"\nMissing, {len(gaps)} of {len(ablation.runs)} runs:", *gaps] if gaps else []
    return "\n".join([text, "", *notes, *missing])


def _format_cells(row: Row) -> tuple[str, ...]:
    figures, count = row.figures, len(row.seeds)
    seeds = f" ({count} of {count + len(row.missing)} seeds)" if row.missing else ""
    if not figures:
        return (f"{row.cell} (not run)", *[""] * (len(HEAD) - 1))
    return (
        row.cell + seeds,
        f"{figures['parameters'].mean:,.0f}",
        f"{figures['tokens'].mean:,.0f}",
        f"{figures['onset_error'].mean:.1f}, {figures['duration_error'].mean:.1f}",
        f"{figures['tokens_per_note'].mean:.2f}",
        f"{figures['tokens_per_cpu_second'].mean:,.0f}" if "tokens_per_cpu_second" in figures else "",
        *(_format_spread(figures[name]) for name in ("validation", "test", "windowed")),
        format_difference(row.difference) if row.is_comparable else "other music",
    )


def _format_spread(figure: Spread) -> str:
    return f"{figure.mean:.2f}" + ("" if figure.deviation is None else f" ± {figure.deviation:.2f}")


def format_difference(difference: Difference | None) -> str:
    """Formats a difference with its confidence interval, if it has one."""
    if difference is None:
        return ""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.2f}"
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"


def as_json(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Converts the rows to JSON-compatible values."""
    return [asdict(row) for row in table]
