"""The table of all experiments, best first: headline figures, differing params, and paired confidence
intervals.

Figures are read only from stages that ran with the params of the experiment: an experiment that stopped early
still contains the files of its base commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.config.yaml_reader import parse_yaml
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import rounded
from coma_gen.evaluation.headline import RANKED_BY, Figures, headline
from coma_gen.evaluation.paired_bootstrap import Difference
from coma_gen.experiments.ablation_table import RESAMPLES, compare_runs
from coma_gen.experiments.dvc_experiments import STAGES, Experiment, all_experiments, has_run, head
from coma_gen.experiments.queue import Queue, read_queue
from coma_gen.experiments.result_tables import read_metrics
from coma_gen.experiments.run_files import Checkout, RunFiles

COMMITTED, HERE = "HEAD", "workspace"
"""Row names of the committed results and of the results in the checkout."""
NEEDED = {
    "train": STAGES[:5],
    "baseline": (*STAGES[:4], "baseline"),
    "evaluate": STAGES,
    "sample": (*STAGES[:5], "sample"),
}
"""Stage -> stages that must have run for its figures to belong to the run."""


@dataclass(frozen=True)
class ScoredRun:
    """A scored run.

    Attributes:
        name: Name of its row.
        files: Access to its files.
        lock: Content of its dvc.lock.
        params: section.key -> value.
        figures: Headline figures.
    """

    name: str
    files: RunFiles
    lock: str
    params: Mapping[str, Any]
    figures: Figures


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: Name of the run.
        is_here: Whether these results are in the checkout.
        figures: Headline figures.
        changes: section.key -> value of the params that differ from the baseline.
        difference: Difference in test bits per note to the baseline.
        note: Why there is no difference; empty if there is one, and for the baseline.
    """

    name: str
    is_here: bool
    figures: Figures
    changes: Mapping[str, Any]
    difference: Difference | None
    note: str


@dataclass(frozen=True)
class Overview:
    """The table.

    Attributes:
        baseline: Name of the run that the others are compared with.
        rows: Rows of all scored runs, best first.
        left_out: Name -> why the run has no row.
        queue: State of DVC's queue.
    """

    baseline: str
    rows: Sequence[Row]
    left_out: Mapping[str, str]
    queue: Queue


def overview(
    root: Path, names: Sequence[str] = (), *, baseline: str | None = None, resamples: int = RESAMPLES
) -> Overview:
    """Builds the table of experiments, the committed results, and other results in the checkout.

    Among several experiments of the same name, one based on the checkout's commit is used, or else the
    newest.

    Args:
        root: The checkout.
        names: Names of the runs to show; empty for all.
        baseline: Run to compare with; None for the committed results, or else those in the checkout.
        resamples: Number of bootstrap resamples.

    Raises:
        UserError: If a named run does not exist or was not scored, or there is no scored run.
    """
    found, left_out = find_scored_runs(root)
    first = choose_run(baseline, found, left_out)
    wanted = [choose_run(name, found, left_out) for name in names] or list(found.values())
    here = _read_lock(Checkout(root, ""))
    rows = [
        build_row(each, first, is_here=each.lock == here, resamples=resamples)
        for each in {each.name: each for each in (first, *wanted)}.values()
    ]
    rows.sort(key=lambda row: (row.figures[RANKED_BY], row.name))
    return Overview(first.name, rows, {} if names else left_out, read_queue(root))


def find_scored_runs(root: Path) -> tuple[dict[str, ScoredRun], dict[str, str]]:
    """Finds all scored runs by name, and the reasons why other runs were not scored."""
    commit = head(root)
    runs: dict[str, RunFiles] = {COMMITTED: Experiment(commit, commit, root)}
    for name, experiment in all_experiments(root):
        runs.setdefault(name, experiment)
    found, left_out = _read_runs(runs.items())
    here = Checkout(root, commit)
    if _read_lock(here) not in {None, *(each.lock for each in found.values())}:
        ours, why_not = _read_runs([(HERE, here)])
        found, left_out = found | ours, left_out | why_not
    if COMMITTED in left_out and _read_lock(runs[COMMITTED]) is None:
        del left_out[COMMITTED]  # nothing was ever committed
    return found, left_out


def _read_lock(files: RunFiles) -> str | None:
    """The content of a run's dvc.lock, which identifies it; None if there is none."""
    try:
        return files.text("dvc.lock")
    except UserError:
        return None


def _read_runs(runs: Iterable[tuple[str, RunFiles]]) -> tuple[dict[str, ScoredRun], dict[str, str]]:
    found, left_out = {}, {}
    for name, files in runs:
        try:
            found[name] = _read_run(name, files)
        except UserError as error:
            left_out[name] = str(error)
    return found, left_out


def _read_run(name: str, files: RunFiles) -> ScoredRun:
    """Reads a run.

    Raises:
        UserError: If it was not scored, or a file does not match its dvc.lock.
    """
    text = files.text("dvc.lock")
    lock, params = (
        parse_yaml(content, name=f"{name}: {file}")
        for file, content in (("dvc.lock", text), ("params.yaml", files.text("params.yaml")))
    )
    ran = [stage for stage, needed in NEEDED.items() if has_run(lock, params, needed)]
    if "evaluate" not in ran:
        rule = "must have run up to the evaluate stage, with its own params"
        raise UserError(Fault(name, rule, "", f"`dvc exp apply {name}`, then `dvc repro`"))
    figures = rounded(headline({stage: read_metrics(files, stage, lock, name=name) for stage in ran}))
    if RANKED_BY not in figures:
        raise UserError(
            Fault(f"{name}: metrics/evaluate.json", "must contain bits per note of the test split")
        )
    return ScoredRun(name, files, text, dict(_iter_params(params)), figures)


def _iter_params(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, keys in params.items():
        if isinstance(keys, Mapping):
            yield from ((f"{section}.{key}", value) for key, value in keys.items())
        else:
            yield str(section), keys


def choose_run(name: str | None, found: Mapping[str, ScoredRun], left_out: Mapping[str, str]) -> ScoredRun:
    """Finds a run by name; without a name, the committed results, or else those in the checkout."""
    if name is None:
        name = COMMITTED if COMMITTED in found else HERE if HERE in found else next(iter(found), COMMITTED)
    if name in found:
        return found[name]
    if name in left_out:
        raise UserError(Fault(f"experiment '{name}'", "must have been scored", left_out[name]))
    known = ", ".join(found) or "none; `dvc repro` makes the first"
    raise UserError(Fault(f"experiment '{name}'", "must be one that was scored", "", f"there are: {known}"))


def build_row(run: ScoredRun, first: ScoredRun, *, is_here: bool = False, resamples: int = RESAMPLES) -> Row:
    """Builds the row of a run, compared with the first."""
    difference, note = (None, "") if run is first else _compare(run, first, resamples)
    unset = object()
    changes = {
        key: run.params.get(key)
        for key in dict.fromkeys([*first.params, *run.params])
        if run.params.get(key, unset) != first.params.get(key, unset)
    }
    return Row(run.name, is_here, run.figures, changes, difference, note)


def _compare(run: ScoredRun, first: ScoredRun, resamples: int) -> tuple[Difference | None, str]:
    """The paired difference, or why there is none."""
    if run.params.get("tokenizer.pedal") != first.params.get("tokenizer.pedal"):
        return None, "other music: pedal"
    tables = []
    for each in (run, first):
        try:
            tables.append(each.files.performances())
        except UserError:
            return None, f"{each.name} not in the cache"
    difference = compare_runs(*tables, resamples=resamples)
    return difference, "" if difference else "other test music"
