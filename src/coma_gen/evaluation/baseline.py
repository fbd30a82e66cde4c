"""The stage `baseline`: scores n-gram models on the same tokens and with the same figures as the model."""

from __future__ import annotations

from pathlib import Path

from coma_gen.config.schema import BaselineParams
from coma_gen.core.artifact import verify_artifact
from coma_gen.core.errors import Fault, UserError
from coma_gen.evaluation.kneser_ney import kneser_ney
from coma_gen.evaluation.ngrams import bigram, uniform, unigram
from coma_gen.evaluation.splits import SCORED, original_sequences, score_split
from coma_gen.evaluation.summary import Metrics
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary


def score_baselines(params: BaselineParams, shards: Path, tokenizer: Path, *, resamples: int) -> Metrics:
    """Fits the n-grams on the train split and scores validation and test.

    Returns:
        Split -> baseline -> figures.

    Raises:
        UserError: A folder is incomplete or changed, or the tokenizer is not that of the shards.
    """
    made_with = verify_artifact(shards, kind="shards").made_from.get("tokenizer")
    if verify_artifact(tokenizer, kind="tokenizer").digest != made_with:
        rule = f"must be the tokenizer that {shards} were made with"
        raise UserError(Fault(str(tokenizer), rule, "another", "run `dvc repro`"))
    vocabulary = Vocabulary.load(tokenizer)
    train = original_sequences(ShardedSplit.open(shards, "train"))
    size = len(vocabulary)
    scorers = {
        "uniform": uniform(size),
        "unigram": unigram(train, size, add=params.add),
        "bigram": bigram(train, size, add=params.add, prior=params.bigram_prior),
        "kneser_ney": kneser_ney(train, size, order=params.kneser_ney_order),
    }
    splits = [ShardedSplit.open(shards, name) for name in SCORED]
    return {
        split.split: {
            key: score_split(split, scorer(original_sequences(split)), vocabulary, resamples=resamples)[0]
            for key, scorer in scorers.items()
        }
        for split in splits
    }
