"""The stage `evaluate`: how likely the model finds the validation and test performances."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from coma_gen.evaluation.context import ContextCurve
from coma_gen.evaluation.likelihood import model_scorer, score_windows
from coma_gen.evaluation.splits import SCORED, check_tokens, played_pieces, scored_split
from coma_gen.evaluation.summary import Metrics, by_composer, by_type
from coma_gen.evaluation.tables import write_parquet
from coma_gen.evaluation.windows import window_shares
from coma_gen.files import replacing_folder
from coma_gen.model.conformer import Conformer
from coma_gen.model.device import choose_device, deterministic
from coma_gen.model.weights import load_model
from coma_gen.params.sections import EvaluateParams
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary

TABLES = ("performances", "composers", "contexts", "windows")
WINDOWED = ("nll_per_token", "perplexity", "bits_per_note_10ms")
"""What is told of the windowed protocol."""
Rows = list[dict[str, Any]]


def score_model(
    params: EvaluateParams, model: Path, shards: Path, destination: Path, *, device: str, threads: int
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
        threads: as `runtime.threads`.

    Returns:
        split -> figures by the reference protocol, `by_type` of token, and `windowed`.

    Raises:
        UserError: when the shards were made by another tokenizer than the model's.
    """
    loaded = load_model(model, device=choose_device(device))
    check_tokens(shards, loaded.manifest, model)
    vocabulary = Vocabulary.load(model / "tokenizer")
    metrics: Metrics = {}
    tables: dict[str, Rows] = defaultdict(list, windows=window_shares(loaded.model))
    with deterministic(threads):
        for name in SCORED:
            split = ShardedSplit.open(shards, name)
            metrics[name], of_split = _score_split(params, loaded.model, split, vocabulary)
            for table, rows in of_split.items():
                tables[table] += [{"split": name, **row} for row in rows]
    with replacing_folder(destination) as folder:
        for table in TABLES:
            write_parquet(folder / f"{table}.parquet", tables[table])
    return metrics


def _score_split(
    params: EvaluateParams, model: Conformer, split: ShardedSplit, vocabulary: Vocabulary
) -> tuple[Metrics, dict[str, Rows]]:
    """The figures of one split, and the rows of each table."""
    pieces, resamples = played_pieces(split), params.bootstrap_resamples
    carried = model_scorer(model, batch=params.batch, chunk=params.chunk, desc=split.split)(pieces)
    windowed, curve = score_windows(
        model,
        pieces,
        batch=params.batch,
        window=params.window,
        stride=params.stride,
        desc=f"{split.split}, windows",
    )
    metrics, table = scored_split(split, carried, vocabulary, resamples=resamples)
    of_windows, other = scored_split(split, windowed, vocabulary, resamples=resamples)
    metrics["by_type"] = by_type(pieces, carried, vocabulary, metrics["notes"])
    metrics["windowed"] = {"window": params.window, "stride": params.stride}
    metrics["windowed"] |= {name: of_windows[name] for name in WINDOWED}
    contexts = [{"protocol": "carried", **row} for row in ContextCurve.since_start(carried).rows()]
    contexts += [{"protocol": "windowed", **row} for row in curve.rows()]
    return metrics, {
        "performances": _records(table.assign(windowed_nats=other["nats"])),
        "composers": by_composer(table, resamples=resamples),
        "contexts": contexts,
    }


def _records(table: pd.DataFrame) -> Rows:
    """The rows of a table as plain values."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict(orient="records")]
