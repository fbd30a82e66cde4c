"""Finished runs side by side, as tables for a page: likelihood, music, memorisation, and their origin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from coma_gen.ablation.table import bits_of, test_rows
from coma_gen.errors import Fault, UserError
from coma_gen.evaluation.bootstrap import ratio_interval
from coma_gen.files import read_json
from coma_gen.params.reading import parse_yaml

BITS = "bits_per_note_10ms"
RESAMPLES = 10_000
BASELINES = {
    "uniform": "uniform",
    "unigram": "unigram",
    "bigram": "bigram",
    "kneser_ney": "Kneser-Ney {}-gram",
}
STAGES = ("train", "baseline", "evaluate", "sample")


class Kept(Protocol):
    """Where a run's files are: a checkout, or an experiment in git and DVC's cache."""

    @property
    def began_at(self) -> str:
        """The commit of the code."""

    def text(self, path: str) -> str:
        """A file of it."""

    def metrics(self, stage: str) -> dict[str, Any]:
        """metrics/<stage>.json."""

    def performances(self) -> pd.DataFrame:
        """The evaluate stage's row for each performance."""


@dataclass(frozen=True)
class Checkout:
    """What lies in a checkout now.

    Attributes:
        root: the checkout.
        began_at: its commit.
    """

    root: Path
    began_at: str

    def text(self, path: str) -> str:
        """A file of it.

        Raises:
            UserError: it is not there.
        """
        try:
            return (self.root / path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(Fault(path, "must be there", error.strerror or "", "run `dvc repro`")) from None

    def metrics(self, stage: str) -> dict[str, Any]:
        """metrics/<stage>.json."""
        found: dict[str, Any] = read_json(self.root / "metrics" / f"{stage}.json")
        return found

    def performances(self) -> pd.DataFrame:
        """The evaluate stage's row for each performance."""
        path = self.root / "data" / "evaluation" / "performances.parquet"
        if not path.exists():
            raise UserError(Fault(str(path), "must be there", "no such file", "run `dvc repro evaluate`"))
        return pd.read_parquet(path)


@dataclass(frozen=True)
class Finished:
    """A run that went through all stages.

    Attributes:
        name: of its row.
        params: all settings.
        metrics: of `STAGES`.
        test: a row for each test performance, in the order of their names.
        commit: of the code.
        lock: SHA-256 of dvc.lock.
        weights: MD5 that dvc.lock has of data/model.
    """

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    test: pd.DataFrame
    commit: str
    lock: str
    weights: str


def finished(name: str, kept: Kept) -> Finished:
    """Reads a run.

    Args:
        name: what its rows are to be called.
        kept: where its files are.

    Raises:
        UserError: a file of it is missing, as where it did not run to the end, or its stages do not agree.
    """
    lock = kept.text("dvc.lock")
    outs = parse_yaml(lock, name="dvc.lock")["stages"].get("train", {}).get("outs", [])
    weights = [out["md5"] for out in outs if out["path"] == "data/model"]
    if not weights:
        raise UserError(Fault(f"{name}: dvc.lock", "must hold a trained model", "none", "run `dvc repro`"))
    metrics = {stage: kept.metrics(stage) for stage in STAGES}
    if metrics["baseline"]["test"]["uniform"]["notes"] != metrics["evaluate"]["test"]["notes"]:
        rule = "must be of one run: baseline and evaluate scored other music"
        raise UserError(Fault(f"{name}: metrics", rule, "", "run `dvc repro`"))
    return Finished(
        name=name,
        params=parse_yaml(kept.text("params.yaml"), name="params.yaml"),
        metrics=metrics,
        test=test_rows(kept.performances()),
        commit=kept.began_at,
        lock=hashlib.sha256(lock.encode()).hexdigest(),
        weights=weights[0].removesuffix(".dir"),
    )


def markdown(runs: Sequence[Finished], *, resamples: int = RESAMPLES) -> str:
    """The tables of runs that were scored on the same music; the baselines are those of the first.

    Raises:
        UserError: they were scored on different music.
    """
    first = runs[0]
    for run in runs[1:]:
        if not run.test[["midi_filename", "notes"]].equals(first.test[["midi_filename", "notes"]]):
            rule = f"must be scored on the same test performances as {first.name}"
            raise UserError(Fault(run.name, rule, "others", "name runs of one corpus and split"))
    parts = (_likelihood(runs, resamples), _music(runs), _memorisation(runs), _origin(runs))
    return "\n\n".join("\n".join(part) for part in parts)


def _likelihood(runs: Sequence[Finished], resamples: int) -> Iterator[str]:
    test = runs[0].metrics["evaluate"]["test"]
    yield f"Test: {test['performances']:,} performances, {test['notes']:,} notes. Less is better; in brackets"
    yield "the 95% confidence by a bootstrap over compositions."
    yield ""
    head = ("", "parameters", "tokens seen", "bits per note at 10 ms: validation", "test", "nats per token")
    yield from _head(head)
    baseline, order = runs[0].metrics["baseline"], runs[0].params["baseline"]["kneser_ney_order"]
    for key, words in BASELINES.items():
        validation, test = (baseline[split][key] for split in ("validation", "test"))
        yield _row(words.format(order), "", "", *_scores(validation, test))
    for run in runs:
        train, scores = run.metrics["train"], run.metrics["evaluate"]
        counts = (f"{train['parameters']:,}", f"{train['tokens']:,}")
        yield _row(run.name, *counts, *_scores(scores["validation"], scores["test"]))
    if len(runs) > 1:
        yield ""
    for run in runs[1:]:
        yield f"{run.name} less {runs[0].name}, test: {_difference(run, runs[0], resamples)} bits per note.  "


def _scores(validation: Mapping[str, Any], test: Mapping[str, Any]) -> tuple[str, str, str]:
    interval = ""
    if f"{BITS}_low" in test:
        interval = f" [{test[f'{BITS}_low']:.2f}, {test[f'{BITS}_high']:.2f}]"
    return f"{validation[BITS]:.2f}", f"{test[BITS]:.2f}{interval}", f"{test['nll_per_token']:.3f}"


def _difference(run: Finished, first: Finished, resamples: int) -> str:
    """What a run's test costs more, with its interval: the same compositions are drawn for both."""
    more = bits_of(run.test) - bits_of(first.test)
    notes = first.test["notes"].to_numpy(np.float64)
    works = list(zip(first.test["composer"], first.test["title"], strict=True))
    interval = ratio_interval(more, notes, works, resamples=resamples)
    brackets = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""
    return f"{more.sum() / notes.sum():+.2f}{brackets}"


def _music(runs: Sequence[Finished]) -> Iterator[str]:
    yield "Music: overlap of the distributions of samples and test excerpts; 1 is the same. Real is train"
    yield "against test, in brackets the 5th percentile of draws of so few: only less than that tells samples"
    yield f"from music. {_numbers(runs)}"
    yield ""
    yield from _head(("", "real", *(run.name for run in runs)))
    for measure, of in runs[0].metrics["sample"]["music"].items():
        real = of["overlap"]
        ours = (run.metrics["sample"]["music"][measure]["overlap"]["with_test"] for run in runs)
        yield _row(
            measure.replace("_", " "),
            f"{real['of_real']:.2f} ({real['of_real_low']:.2f})",
            *(f"{overlap:.2f}" for overlap in ours),
        )


def _numbers(runs: Sequence[Finished]) -> str:
    """How many samples and excerpts, and how long."""
    excerpts = runs[0].metrics["sample"]["excerpts"]
    samples = " and ".join(dict.fromkeys(str(run.metrics["sample"]["samples"]) for run in runs))
    numbers = f"{excerpts['train']} and {excerpts['test']} excerpts of {excerpts['seconds']:g} s"
    return f"{samples} samples, {numbers}."


def _memorisation(runs: Sequence[Finished]) -> Iterator[str]:
    yield "Memorisation: the longest passage of a piece that the train split has too, at any pitch, in notes."
    yield ""
    yield from _head(("", "pieces", "mean", "longest"))
    found = {run.name: run.metrics["sample"]["memorisation"]["samples"] for run in runs}
    for name, of in {"test excerpts": runs[0].metrics["sample"]["memorisation"]["test"], **found}.items():
        yield _row(name, f"{of['pieces']}", f"{of['mean_notes']:.1f}", f"{of['longest_notes']}")


def _origin(runs: Sequence[Finished]) -> Iterator[str]:
    yield "Made from: the commit of the code, SHA-256 of dvc.lock, MD5 of the model in it."
    yield ""
    yield from _head(("", "commit", "dvc.lock", "data/model"))
    for run in runs:
        yield _row(run.name, *(f"`{digest[:12]}`" for digest in (run.commit, run.lock, run.weights)))


def _head(names: Sequence[str]) -> tuple[str, str]:
    return _row(*names), f"| --- |{' --: |' * (len(names) - 1)}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
