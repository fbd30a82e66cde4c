"""A whole split under a scorer: its figures, and those of each performance."""

from __future__ import annotations

import pandas as pd

from coma_gen.evaluation.scorer import Ids, Scorer
from coma_gen.evaluation.summary import Metrics, by_type, piece_table, split_metrics
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary

SCORED = ("validation", "test")


def played_pieces(split: ShardedSplit) -> list[Ids]:
    """The performances as they were played, without copies made for training, in the index's order."""
    return [split.piece(int(row)) for row in split.originals]


def scored_split(
    split: ShardedSplit, scorer: Scorer, vocabulary: Vocabulary, *, resamples: int
) -> tuple[Metrics, pd.DataFrame]:
    """The figures of a split, by token type too, and the table of its performances."""
    pieces = played_pieces(split)
    nats = scorer(pieces)
    table = piece_table(split.index.iloc[split.originals], pieces, nats, vocabulary)
    metrics = split_metrics(table, resamples=resamples)
    metrics["by_type"] = by_type(pieces, nats, vocabulary, metrics["notes"])
    return metrics, table
