"""The stage `evaluate`: how likely the model finds the validation and test performances."""

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
"""What is told of the windowed protocol."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _Part:
    """Pieces that are scored together. What they cost does not depend on who scores them.

    Attributes:
        split: whose they are.
        rows: their indices in it.
        windowed: by which protocol.
    """

    split: str
    rows: tuple[int, ...]
    windowed: bool


@dataclass(frozen=True)
class _Scoring:
    """What a process needs to score parts."""

    params: EvaluateParams
    model: Conformer
    pieces: Mapping[str, Sequence[Ids]]


@dataclass(frozen=True)
class _Scored:
    """The nats of every token of a split's pieces by each protocol, and the curve within windows."""

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
        params: the evaluate section.
        model: the folder that the train stage wrote.
        shards: the tokens.
        destination: where `TABLES` are put, each as <name>.parquet; those with a column `split`: a row a
            performance; a row a composer; what a token costs by how much the model saw before it, under each
            protocol; and that of the model's own `window_shares`.
        device: as `runtime.device`.
        threads: as `runtime.threads`, of each process.
        processes: that share the work; the result does not depend on it.

    Returns:
        split -> figures by the reference protocol, `by_type` of token, and `windowed`.

    Raises:
        UserError: when the shards were made by another tokenizer than the model's.
    """
    loaded = load_model(model)
    check_tokens(shards, loaded.manifest, model)
    vocabulary = Vocabulary.load(model / "tokenizer")
    splits = {name: ShardedSplit.open(shards, name) for name in SCORED}
    prepare = partial(_prepared, params, model, shards, device, threads)
    scored = _score_parts(params, splits, prepare, processes)
    metrics: Metrics = {}
    tables: dict[str, Rows] = defaultdict(list, windows=window_shares(loaded.model))
    for name, split in splits.items():
        metrics[name], of_split = _figures(params, split, scored[name], vocabulary)
        for table, rows in of_split.items():
            tables[table] += [{"split": name, **row} for row in rows]
    with atomic_dir(destination) as folder:
        for table in TABLES:
            write_parquet(folder / f"{table}.parquet", tables[table])
    return metrics


@contextmanager
def _prepared(
    params: EvaluateParams, model: Path, shards: Path, device: str, threads: int
) -> Iterator[_Scoring]:
    """Reads the model and the pieces; scores are the same again within."""
    torch_device = choose_device(device)
    pieces = {name: original_sequences(ShardedSplit.open(shards, name)) for name in SCORED}
    with deterministic(threads, torch_device):
        yield _Scoring(params, load_model(model, device=torch_device).model, pieces)


def _score_parts(
    params: EvaluateParams,
    splits: Mapping[str, ShardedSplit],
    prepare: partial[Any],
    processes: int,
) -> dict[str, _Scored]:
    """Scores both splits by both protocols, `params.batch` pieces at a time."""
    pieces = {name: original_sequences(split) for name, split in splits.items()}
    parts = []
    for name, of_split in pieces.items():
        order = sorted(range(len(of_split)), key=lambda row: (len(of_split[row]), row))
        groups = [tuple(order[first : first + params.batch]) for first in range(0, len(order), params.batch)]
        parts += [_Part(name, rows, windowed) for windowed in (False, True) for rows in groups]
    again = params.window / params.stride  # how often the windowed protocol reads a token
    costs = [
        sum(len(pieces[part.split][row]) - 1 for row in part.rows) * (again if part.windowed else 1.0)
        for part in parts
    ]
    results = map_prepared(
        _score_part, parts, costs=costs, prepare=prepare, processes=processes, desc="score", unit="token"
    )
    scored = {
        name: _Scored([np.empty(0)] * len(of_split), [np.empty(0)] * len(of_split), ContextCurve())
        for name, of_split in pieces.items()
    }
    for part, (nats, curve) in zip(parts, results, strict=True):
        whole = scored[part.split]
        for row, of_piece in zip(part.rows, nats, strict=True):
            (whole.windowed if part.windowed else whole.carried)[row] = of_piece
        if part.windowed:
            whole.curve.include(curve)
    return scored


def _score_part(scoring: _Scoring, part: _Part) -> tuple[list[Nats], ContextCurve]:
    """The nats of the part's pieces, and the curve within windows where it is scored by them."""
    params, pieces = scoring.params, [scoring.pieces[part.split][row] for row in part.rows]
    if not part.windowed:
        scorer = model_scorer(scoring.model, batch=params.batch, chunk=params.chunk, desc=None)
        return scorer(pieces), ContextCurve()
    return score_windows(
        scoring.model, pieces, batch=params.batch, window=params.window, stride=params.stride, desc=None
    )


def _figures(
    params: EvaluateParams, split: ShardedSplit, scored: _Scored, vocabulary: Vocabulary
) -> tuple[Metrics, dict[str, Rows]]:
    """The figures of one split, and the rows of each table."""
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
        "performances": _records(table.assign(windowed_nats=other["nats"])),
        "composers": by_composer(table, resamples=resamples),
        "contexts": contexts,
    }


def _records(table: pd.DataFrame) -> Rows:
    """The rows of a table as plain values."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict(orient="records")]
