"""The stage `evaluate`: scores the validation and test performances with the trained model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coma_gen.config.schema import EvaluateParams
from coma_gen.core.io import atomic_dir
from coma_gen.core.parallel import map_prepared
from coma_gen.evaluation.context_length import ContextCurve
from coma_gen.evaluation.likelihood import model_scorer, score_windows
from coma_gen.evaluation.scorer import Ids, Nats
from coma_gen.evaluation.splits import SCORED, check_tokens, original_sequences, score_split
from coma_gen.evaluation.summary import Metrics, by_composer, by_type
from coma_gen.evaluation.tables import write_parquet
from coma_gen.evaluation.window_weights import window_shares
from coma_gen.model.conformer import Conformer
from coma_gen.model.device import choose_device, deterministic
from coma_gen.model.serialization import load_model
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary

TABLES = ("performances", "composers", "contexts", "windows")
WINDOWED = ("nll_per_token", "perplexity", "bits_per_note_10ms")
"""Figures that are reported for the windowed protocol."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _ScoringTask:
    """Pieces that are scored together; the result does not depend on the process.

    Attributes:
        split: Split of the pieces.
        rows: Their indices in the split.
        windowed: Whether to use the windowed protocol.
    """

    split: str
    rows: tuple[int, ...]
    windowed: bool


@dataclass(frozen=True)
class _ScoringContext:
    """Model and data of one process."""

    params: EvaluateParams
    model: Conformer
    pieces: Mapping[str, Sequence[Ids]]


@dataclass(frozen=True)
class _SplitNats:
    """Nats of every token of a split's pieces by each protocol, and the curve within windows."""

    carried: list[Nats]
    windowed: list[Nats]
    curve: ContextCurve


def score_model(
    params: EvaluateParams,
    model: Path,
    shards: Path,
    destination: Path,
    *,
    device: str,
    threads: int,
    processes: int = 1,
) -> Metrics:
    """Scores validation and test with the trained model.

    Args:
        params: The evaluate section.
        model: Folder of the train stage.
        shards: Folder of the shards.
        destination: Folder for `TABLES`, each as <name>.parquet. With a column `split`: one row per
            performance; one row per composer; nats by context length under each protocol. Without: the
            model's `window_shares`.
        device: `runtime.device`.
        threads: `runtime.threads`, for each process.
        processes: Number of processes; the result does not depend on it.

    Returns:
        Split -> figures by the reference protocol, `by_type` of token, and `windowed`.

    Raises:
        UserError: The shards were encoded by another tokenizer than the model's.
    """
    loaded = load_model(model)
    check_tokens(shards, loaded.manifest, model)
    vocabulary = Vocabulary.load(model / "tokenizer")
    splits = {name: ShardedSplit.open(shards, name) for name in SCORED}
    prepare = partial(_load_scoring, params, model, shards, device, threads)
    scored = _score_splits(params, splits, prepare, processes)
    metrics: Metrics = {}
    tables: dict[str, Rows] = defaultdict(list, windows=window_shares(loaded.model))
    for name, split in splits.items():
        metrics[name], of_split = _compute_figures(params, split, scored[name], vocabulary)
        for table, rows in of_split.items():
            tables[table] += [{"split": name, **row} for row in rows]
    with atomic_dir(destination) as folder:
        for table in TABLES:
            write_parquet(folder / f"{table}.parquet", tables[table])
    return metrics


@contextmanager
def _load_scoring(
    params: EvaluateParams, model: Path, shards: Path, device: str, threads: int
) -> Iterator[_ScoringContext]:
    """Loads the model and the pieces; torch computes deterministically inside the block."""
    torch_device = choose_device(device)
    pieces = {name: original_sequences(ShardedSplit.open(shards, name)) for name in SCORED}
    with deterministic(threads, torch_device):
        yield _ScoringContext(params, load_model(model, device=torch_device).model, pieces)


def _score_splits(
    params: EvaluateParams,
    splits: Mapping[str, ShardedSplit],
    prepare: partial[Any],
    processes: int,
) -> dict[str, _SplitNats]:
    """Scores both splits by both protocols, in tasks of `params.batch` pieces."""
    pieces = {name: original_sequences(split) for name, split in splits.items()}
    tasks = []
    for name, of_split in pieces.items():
        order = sorted(range(len(of_split)), key=lambda row: (len(of_split[row]), row))
        groups = [tuple(order[first : first + params.batch]) for first in range(0, len(order), params.batch)]
        tasks += [_ScoringTask(name, rows, windowed) for windowed in (False, True) for rows in groups]
    passes = params.window / params.stride  # forward passes over each token in the windowed protocol
    costs = [
        sum(len(pieces[task.split][row]) - 1 for row in task.rows) * (passes if task.windowed else 1.0)
        for task in tasks
    ]
    results = map_prepared(
        _score_task, tasks, costs=costs, prepare=prepare, processes=processes, desc="score", unit="token"
    )
    scored = {
        name: _SplitNats([np.empty(0)] * len(of_split), [np.empty(0)] * len(of_split), ContextCurve())
        for name, of_split in pieces.items()
    }
    for task, (nats, curve) in zip(tasks, results, strict=True):
        whole = scored[task.split]
        for row, of_piece in zip(task.rows, nats, strict=True):
            (whole.windowed if task.windowed else whole.carried)[row] = of_piece
        if task.windowed:
            whole.curve.include(curve)
    return scored


def _score_task(context: _ScoringContext, task: _ScoringTask) -> tuple[list[Nats], ContextCurve]:
    """Returns the nats of the task's pieces and the curve within windows (empty for the carried protocol)."""
    params, pieces = context.params, [context.pieces[task.split][row] for row in task.rows]
    if not task.windowed:
        scorer = model_scorer(context.model, batch=params.batch, chunk=params.chunk, desc=None)
        return scorer(pieces), ContextCurve()
    return score_windows(
        context.model, pieces, batch=params.batch, window=params.window, stride=params.stride, desc=None
    )


def _compute_figures(
    params: EvaluateParams, split: ShardedSplit, scored: _SplitNats, vocabulary: Vocabulary
) -> tuple[Metrics, dict[str, Rows]]:
    """Computes the figures of one split and the rows of each table."""
    pieces, resamples = original_sequences(split), params.bootstrap_resamples
    metrics, table = score_split(split, scored.carried, vocabulary, resamples=resamples)
    of_windows, other = score_split(split, scored.windowed, vocabulary, resamples=resamples)
    metrics["by_type"] = by_type(pieces, scored.carried, vocabulary, metrics["notes"])
    metrics["windowed"] = {"window": params.window, "stride": params.stride}
    metrics["windowed"] |= {name: of_windows[name] for name in WINDOWED}
    since_start = ContextCurve.since_start(scored.carried)
    contexts = [{"protocol": "carried", **row} for row in since_start.rows()]
    contexts += [{"protocol": "windowed", **row} for row in scored.curve.rows()]
    return metrics, {
        "performances": _to_records(table.assign(windowed_nats=other["nats"])),
        "composers": by_composer(table, resamples=resamples),
        "contexts": contexts,
    }


def _to_records(table: pd.DataFrame) -> Rows:
    """Converts a table to rows of plain values."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict(orient="records")]
