"""The `train` stage: trains a model on shards and writes it to data/model.

data/model holds everything that sampling and serving need: best and last weights, model shape and tokenizer.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from coma_gen.config.rules import check_world_size
from coma_gen.config.schema import Params
from coma_gen.core.artifact import verify_artifact
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import write_atomic
from coma_gen.model.conformer import Conformer
from coma_gen.model.device import computes_bf16
from coma_gen.model.serialization import load_model, save_model
from coma_gen.shards.conditions import WindowConditions
from coma_gen.shards.read import ShardedSplit, read_shifts
from coma_gen.training.distillation import load_teacher
from coma_gen.training.distributed import init_distributed
from coma_gen.training.events import check_tensorboard
from coma_gen.training.loop import train_model

logger = logging.getLogger(__name__)


def train_stage(
    params: Params,
    *,
    shards: Path,
    tokenizer: Path,
    init_from: Path | None,
    teacher: Path | None = None,
    resume: Path,
    key: str,
    model: Path,
    curve: Path,
    events: Path | None = None,
) -> dict[str, Any] | None:
    """Trains a model, resuming from a checkpoint if there is one, and writes the model and its curve.

    Args:
        params: All settings; model, train and runtime are used.
        shards: Folder of the shards.
        tokenizer: Folder of the tokenizer of the shards; it is copied into the model's folder.
        init_from: Folder of a model that provides the initial weights; None for random weights.
        teacher: Folder of the teacher model for distillation; None for none.
        resume: Folder of this run's checkpoints.
        key: Digest of everything that the result depends on.
        model: Folder to write the model to.
        curve: File to write the training curve to.
        events: Folder of TensorBoard event files, written if `train.tensorboard` is set.

    Returns:
        Metrics on the first rank, None on the others.

    Raises:
        UserError: As in `train_model`; if shards, tokenizer, initial weights and teacher do not match, a step
            cannot be divided among the ranks, or the package for event files is missing.
    """
    if params.train.tensorboard:
        check_tensorboard()
    shards_manifest = verify_artifact(shards, kind="shards")
    tokenizer_manifest = verify_artifact(tokenizer, kind="tokenizer")
    if shards_manifest.made_from["tokenizer"] != tokenizer_manifest.digest:
        raise UserError(
            Fault(str(shards), f"must be made with {tokenizer}", "another tokenizer", "run `dvc repro`")
        )
    made_from = {"shards": shards_manifest.digest, "tokenizer": tokenizer_manifest.digest}
    conformer = Conformer(
        params=params.model, vocab_size=int(shards_manifest.settings["vocab_size"]), seed=params.train.seed
    )
    vocabulary = tokenizer_manifest.files["vocabulary.json"]
    if init_from is not None:
        made_from["init_from"] = _load_initial_weights(conformer, init_from, vocabulary)
    teacher_model = None
    if teacher is not None:
        teacher_model, made_from["teacher"] = load_teacher(teacher, params, vocabulary=vocabulary)
    with init_distributed() as ranks:
        if ranks.is_first and params.train.precision == "bf16":
            warn_of_bf16(ranks.device(params.runtime.device))
        faults = list(check_world_size(ranks.size, params.model, params.train))
        if faults:
            raise ranks.exit_error(UserError(*faults), status=1)
        result = train_model(
            model=conformer,
            train_split=ShardedSplit.open(shards, "train", copies=params.train.augment),
            validation_split=ShardedSplit.open(shards, "validation"),
            shifts=read_shifts(shards),
            params=params.train,
            threads=params.runtime.threads,
            device=params.runtime.device,
            pad_id=int(shards_manifest.settings["pad_id"]),
            resume=resume,
            key=key,
            events=events if params.train.tensorboard else None,
            ranks=ranks,
            conditions=WindowConditions.load(tokenizer, params.model.conditions),
            teacher=teacher_model,
        )
    if result is None:
        return None
    weights = {"best": result.best_state, "last": result.last_state}
    save_model(model, conformer, weights=weights, tokenizer=tokenizer, made_from=made_from)
    write_atomic(curve, result.curve.read_bytes())
    return result.metrics


def warn_of_bf16(device: torch.device) -> None:
    """Logs a warning if the device emulates bf16."""
    if not computes_bf16(device):
        logger.warning("train.precision: this CPU emulates bf16; fp32 is faster here, with other results")


def _load_initial_weights(conformer: Conformer, folder: Path, vocabulary: str) -> str:
    """Loads another model's best weights; returns the digest of that model.

    Embeddings of new conditions remain zero, so the model initially computes the same function.

    Raises:
        UserError: If its tokenizer or its shape (except dropout) differs from this run's, or it has a
            condition that this run lacks.
    """
    other = load_model(folder)
    faults = []
    if other.manifest.files.get("tokenizer/vocabulary.json") != vocabulary:
        remedy = "use the tokenizer section of params.yaml that it was trained with"
        faults.append(
            Fault("train.init_from", "must have been trained with the same tokens", "others", remedy)
        )
    ours, theirs = conformer.params.model_dump(), other.model.params.model_dump()
    new = [name for name in ours["conditions"] if name not in theirs["conditions"]]
    if lost := [name for name in theirs["conditions"] if name not in ours["conditions"]]:
        rule = f"must name {', '.join(lost)}, as in train.init_from"
        faults.append(Fault("model.conditions", rule, str(list(ours["conditions"]))))
    faults += [
        Fault(f"model.{name}", f"must be {theirs[name]}, as in train.init_from", str(ours[name]))
        for name in ours
        if ours[name] != theirs[name] and not name.endswith("dropout") and name != "conditions"
    ]
    if faults:
        raise UserError(*faults)
    if new:
        logger.warning("train.init_from: has no embeddings of %s, which start at zero", ", ".join(new))
    conformer.load_state_dict(conformer.state_dict() | other.model.state_dict())
    return other.manifest.digest
