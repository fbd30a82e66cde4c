"""Figures of a whole split and of each of its performances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from coma_gen.core.artifact import Manifest, verify_artifact
from coma_gen.core.errors import Fault, UserError
from coma_gen.evaluation.scorer import Ids, Nats
from coma_gen.evaluation.summary import Metrics, piece_table, split_metrics
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary

SCORED = ("validation", "test")


def original_sequences(split: ShardedSplit) -> list[Ids]:
    """Returns the unaugmented performances in the order of the index."""
    return [split.piece(int(row)) for row in split.originals]


def score_split(
    split: ShardedSplit, nats: Sequence[Nats], vocabulary: Vocabulary, *, resamples: int
) -> tuple[Metrics, pd.DataFrame]:
    """Computes the figures of a split and the table of its performances.

    Args:
        split: Shards of the split.
        nats: Nats (T,) of each of `original_sequences`.
        vocabulary: Vocabulary of the tokens.
        resamples: Number of bootstrap resamples of the confidence intervals.
    """
    table = piece_table(split.index.iloc[split.originals], original_sequences(split), nats, vocabulary)
    return split_metrics(table, resamples=resamples), table


def check_tokens(shards: Path, model: Manifest, folder: Path) -> None:
    """Checks that shards were encoded by the model's tokenizer.

    Args:
        shards: Folder of the shards.
        model: Manifest of the model.
        folder: Folder of the model.

    Raises:
        UserError: The shards are incomplete or changed, or were encoded by another tokenizer.
    """
    manifest = verify_artifact(shards, kind="shards")
    if manifest.made_from["tokenizer"] != model.made_from["tokenizer"]:
        rule = f"must have been trained on the tokens of {shards}"
        remedy = "run `dvc repro` so that both come from one tokenizer"
        raise UserError(Fault(str(folder), rule, "another tokenizer", remedy))
