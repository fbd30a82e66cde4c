"""The stages `baseline` and `evaluate`: the same tokens, the same figures, for n-grams and for the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coma_gen.artefact import open_artefact
from coma_gen.errors import Fault, UserError
from coma_gen.evaluation.likelihood import Ids, Scorer, model_scorer
from coma_gen.evaluation.ngrams import bigram, unigram, uniform
from coma_gen.evaluation.summary import Metrics, by_type, piece_table, split_metrics
from coma_gen.files import replacing_folder
from coma_gen.model.device import choose_device, deterministic
from coma_gen.model.weights import load_model
from coma_gen.params.sections import BaselineParams, EvaluateParams
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary

SCORED = ("validation", "test")


def played_pieces(split: ShardedSplit) -> list[Ids]:
    """The performances as they were played, without the copies made for training, in the order of the index."""
    return [split.piece(int(row)) for row in split.index.index[split.index["copy"] == 0]]


def _scored(split: ShardedSplit, scorer: Scorer, vocabulary: Vocabulary, resamples: int) -> tuple[Metrics, Any]:
    pieces = played_pieces(split)
    nats = scorer(pieces)
    table = piece_table(split.index[split.index["copy"] == 0], pieces, nats, vocabulary)
    metrics = split_metrics(table, resamples=resamples)
    metrics["by_type"] = by_type(pieces, nats, vocabulary, metrics["notes"])
    return metrics, table


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
        of_split = {key: _scored(split, scorer, vocabulary, resamples)[0] for key, scorer in scorers.items()}
        metrics[name] = {key: {k: v for k, v in of.items() if k != "by_type"} for key, of in of_split.items()}
    return metrics


def score_model(
    params: EvaluateParams, model: Path, shards: Path, destination: Path, *, device: str, threads: int
) -> Metrics:
    """Scores validation and test with the trained model.

    Args:
        params: the evaluate section.
        model: the folder that the train stage wrote.
        shards: the tokens.
        destination: where <split>.csv, one row a performance, is put.
        device: as `runtime.device`.
        threads: as `runtime.threads`.

    Returns:
        split -> figures.

    Raises:
        UserError: when the shards were made by another tokenizer than the model's.
    """
    loaded = load_model(model, weights=params.checkpoint, device=choose_device(device))
    sealed = open_artefact(shards, kind="shards")
    if sealed.made_from["tokenizer"] != loaded.manifest.made_from["tokenizer"]:
        remedy = "run `dvc repro` so that both come from one tokenizer"
        raise UserError(Fault(str(model), f"must have been trained on the tokens of {shards}", "another tokenizer", remedy))
    metrics: Metrics = {}
    with replacing_folder(destination) as folder, deterministic(threads):
        for name in SCORED:
            scorer = model_scorer(loaded.model, batch=params.batch, chunk=params.chunk, desc=name)
            split = ShardedSplit.open(shards, name)
            metrics[name], table = _scored(split, scorer, loaded.vocabulary, params.bootstrap_resamples)
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    return metrics
