"""A whole split under a scorer: its figures, and those of each performance."""

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
    """The performances as they were played, without copies made for training, in the index's order."""
    return [split.piece(int(row)) for row in split.originals]


def score_split(
    split: ShardedSplit, nats: Sequence[Nats], vocabulary: Vocabulary, *, resamples: int
) -> tuple[Metrics, pd.DataFrame]:
    """The figures of a split, and the table of its performances.

    Args:
        split: the tokens, and what is known of each performance.
        nats: (T,) what each token cost, for each of `original_sequences`.
        vocabulary: of the tokens.
        resamples: of the confidence intervals.
    """
    table = piece_table(split.index.iloc[split.originals], original_sequences(split), nats, vocabulary)
    return split_metrics(table, resamples=resamples), table


def check_tokens(shards: Path, model: Manifest, folder: Path) -> None:
    """Refuses shards whose ids mean something else to the model.

    Args:
        shards: the tokens.
        model: the manifest of the model.
        folder: where the model is.

    Raises:
        UserError: when the shards are not whole, or were made by another tokenizer than the model's.
    """
    sealed = verify_artifact(shards, kind="shards")
    if sealed.made_from["tokenizer"] != model.made_from["tokenizer"]:
        rule = f"must have been trained on the tokens of {shards}"
        remedy = "run `dvc repro` so that both come from one tokenizer"
        raise UserError(Fault(str(folder), rule, "another tokenizer", remedy))
