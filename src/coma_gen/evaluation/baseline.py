"""The stage `baseline`: n-grams on the same tokens, in the same figures as the model."""

from __future__ import annotations

from pathlib import Path

from coma_gen.artefact import open_artefact
from coma_gen.evaluation.ngrams import bigram, uniform, unigram
from coma_gen.evaluation.splits import SCORED, played_pieces, scored_split
from coma_gen.evaluation.summary import Metrics
from coma_gen.params.sections import BaselineParams
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary


def score_baselines(params: BaselineParams, shards: Path, tokenizer: Path, *, resamples: int) -> Metrics:
    """Fits the n-grams on the train split and scores validation and test.

    Returns:
        split -> baseline -> figures.
    """
    open_artefact(shards, kind="shards")
    vocabulary = Vocabulary.load(tokenizer)
    train = played_pieces(ShardedSplit.open(shards, "train"))
    size = len(vocabulary)
    scorers = {
        "uniform": uniform(size),
        "unigram": unigram(train, size, add=params.add),
        "bigram": bigram(train, size, add=params.add, prior=params.bigram_prior),
    }
    metrics: Metrics = {}
    for name in SCORED:
        split = ShardedSplit.open(shards, name)
        metrics[name] = {
            key: scored_split(split, scorer, vocabulary, resamples=resamples)[0]
            for key, scorer in scorers.items()
        }
        for of_baseline in metrics[name].values():
            del of_baseline["by_type"]
    return metrics
