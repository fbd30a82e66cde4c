"""The stage `evaluate`: how likely the model finds the validation and test performances."""

from __future__ import annotations

from pathlib import Path

from coma_gen.artefact import open_artefact
from coma_gen.errors import Fault, UserError
from coma_gen.evaluation.likelihood import model_scorer
from coma_gen.evaluation.splits import SCORED, scored_split
from coma_gen.evaluation.summary import Metrics
from coma_gen.files import replacing_folder
from coma_gen.model.device import choose_device, deterministic
from coma_gen.model.weights import load_model
from coma_gen.params.sections import EvaluateParams
from coma_gen.shards.read import ShardedSplit
from coma_gen.tokenizer.vocabulary import Vocabulary


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
    loaded = load_model(model, device=choose_device(device))
    sealed = open_artefact(shards, kind="shards")
    if sealed.made_from["tokenizer"] != loaded.manifest.made_from["tokenizer"]:
        remedy = "run `dvc repro` so that both come from one tokenizer"
        raise UserError(
            Fault(
                str(model), f"must have been trained on the tokens of {shards}", "another tokenizer", remedy
            )
        )
    vocabulary = Vocabulary.load(model / "tokenizer")
    metrics: Metrics = {}
    with replacing_folder(destination) as folder, deterministic(threads):
        for name in SCORED:
            scorer = model_scorer(loaded.model, batch=params.batch, chunk=params.chunk, desc=name)
            split = ShardedSplit.open(shards, name)
            metrics[name], table = scored_split(
                split, scorer, vocabulary, resamples=params.bootstrap_resamples
            )
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    return metrics
