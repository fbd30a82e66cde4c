"""All experiments in one short table, the best first: headline, what differs in params, and how sure it is
that one is better than the baseline.

Each figure is taken only from a stage that ran under the experiment's own params: an experiment that ended
early still holds the files of the commit that it began at.
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
from coma_gen.experiments.ablation_table import RESAMPLES, between
from coma_gen.experiments.dvc_experiments import STAGES, Experiment, all_experiments, has_run, head
from coma_gen.experiments.queue import Queue, read_queue
from coma_gen.experiments.result_tables import Checkout, RunFiles, metrics_of

COMMITTED, HERE = "HEAD", "workspace"
"""What the rows of the committed results, and of what lies in the checkout, are called."""
NEEDED = {
    "train": STAGES[:5],
    "baseline": (*STAGES[:4], "baseline"),
    "evaluate": STAGES,
    "sample": (*STAGES[:5], "sample"),
}
"""Stage -> what must have run for its figures to be the run's own."""


@dataclass(frozen=True)
class Standing:
    """A run and its figures.

    Attributes:
        name: of its row.
        files: where its files are.
        lock: the text of its dvc.lock.
        params: section.key -> value.
        figures: its headline.
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
        name: of the run.
        is_here: whether these results lie in the checkout.
        figures: its headline.
        changes: section.key -> its value, of the params in which it differs from the baseline.
        difference: of its test bits to the baseline's.
        note: why there is no difference; empty where there is one, and for the baseline itself.
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
        baseline: the name of the run that the others are held against.
        rows: of all runs that have been scored, the best first.
        left_out: name -> why it has no row.
        queue: what DVC's queue has.
    """

    baseline: str
    rows: Sequence[Row]
    left_out: Mapping[str, str]
    queue: Queue


def overview(
    root: Path, names: Sequence[str] = (), *, baseline: str | None = None, resamples: int = RESAMPLES
) -> Overview:
    """The experiments of a checkout, its committed results, and what lies in it where that is none of them.

    Of several experiments of a name, one that began at the checkout's own commit counts, else the newest.

    Args:
        root: the checkout.
        names: of the runs to show; none shows all.
        baseline: the run to hold the others against; None takes the committed results, or else what lies in
            the checkout.
        resamples: draws of the confidence.

    Raises:
        UserError: a run that was named is not there or was not scored, or nothing was.
    """
    found, left_out = standings(root)
    first = chosen(baseline, found, left_out)
    wanted = [chosen(name, found, left_out) for name in names] or list(found.values())
    here = _text_of(Checkout(root, ""))
    rows = [
        row_of(each, first, is_here=each.lock == here, resamples=resamples)
        for each in {each.name: each for each in (first, *wanted)}.values()
    ]
    rows.sort(key=lambda row: (row.figures[RANKED_BY], row.name))
    return Overview(first.name, rows, {} if names else left_out, read_queue(root))


def standings(root: Path) -> tuple[dict[str, Standing], dict[str, str]]:
    """Name -> every run that was scored; and why others were not, as far as anybody began them."""
    commit = head(root)
    runs: dict[str, RunFiles] = {COMMITTED: Experiment(commit, commit, root)}
    for name, experiment in all_experiments(root):
        runs.setdefault(name, experiment)
    found, left_out = _scored(runs.items())
    here = Checkout(root, commit)
    if _text_of(here) not in {None, *(each.lock for each in found.values())}:
        ours, why_not = _scored([(HERE, here)])
        found, left_out = found | ours, left_out | why_not
    if COMMITTED in left_out and _text_of(runs[COMMITTED]) is None:
        del left_out[COMMITTED]  # nothing was ever committed
    return found, left_out


def _text_of(files: RunFiles) -> str | None:
    """A run's dvc.lock, which tells it from others; None where there is none."""
    try:
        return files.text("dvc.lock")
    except UserError:
        return None


def _scored(runs: Iterable[tuple[str, RunFiles]]) -> tuple[dict[str, Standing], dict[str, str]]:
    found, left_out = {}, {}
    for name, files in runs:
        try:
            found[name] = _standing(name, files)
        except UserError as error:
            left_out[name] = str(error)
    return found, left_out


def _standing(name: str, files: RunFiles) -> Standing:
    """Reads a run.

    Raises:
        UserError: it has not been scored, or a file of it is not what its lock says.
    """
    text = files.text("dvc.lock")
    lock, params = (
        parse_yaml(content, name=f"{name}: {file}")
        for file, content in (("dvc.lock", text), ("params.yaml", files.text("params.yaml")))
    )
    ran = [stage for stage, needed in NEEDED.items() if has_run(lock, params, needed)]
    if "evaluate" not in ran:
        rule = "must have run up to the evaluate stage, under its own params"
        raise UserError(Fault(name, rule, "", f"`dvc exp apply {name}`, then `dvc repro`"))
    figures = rounded(headline({stage: metrics_of(files, stage, lock, name=name) for stage in ran}))
    if RANKED_BY not in figures:
        raise UserError(Fault(f"{name}: metrics/evaluate.json", "must hold bits per note of the test split"))
    return Standing(name, files, text, dict(_leaves(params)), figures)


def _leaves(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, keys in params.items():
        if isinstance(keys, Mapping):
            yield from ((f"{section}.{key}", value) for key, value in keys.items())
        else:
            yield str(section), keys


def chosen(name: str | None, found: Mapping[str, Standing], left_out: Mapping[str, str]) -> Standing:
    """The run of a name; of none, that of the committed results, or else of the checkout."""
    if name is None:
        name = COMMITTED if COMMITTED in found else HERE if HERE in found else next(iter(found), COMMITTED)
    if name in found:
        return found[name]
    if name in left_out:
        raise UserError(Fault(f"experiment '{name}'", "must have been scored", left_out[name]))
    known = ", ".join(found) or "none; `dvc repro` makes the first"
    raise UserError(Fault(f"experiment '{name}'", "must be one that was scored", "", f"there are: {known}"))


def row_of(run: Standing, first: Standing, *, is_here: bool = False, resamples: int = RESAMPLES) -> Row:
    """A run's row of the table, held against the first."""
    difference, note = (None, "") if run is first else _against(run, first, resamples)
    unset = object()
    changes = {
        key: run.params.get(key)
        for key in dict.fromkeys([*first.params, *run.params])
        if run.params.get(key, unset) != first.params.get(key, unset)
    }
    return Row(run.name, is_here, run.figures, changes, difference, note)


def _against(run: Standing, first: Standing, resamples: int) -> tuple[Difference | None, str]:
    """The paired difference, or why there is none."""
    if run.params.get("tokenizer.pedal") != first.params.get("tokenizer.pedal"):
        return None, "other music: pedal"
    tables = []
    for each in (run, first):
        try:
            tables.append(each.files.performances())
        except UserError:
            return None, f"{each.name} not in the cache"
    difference = between(*tables, resamples=resamples)
    return difference, "" if difference else "other test music"
