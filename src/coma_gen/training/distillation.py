"""Knowledge distillation: a student is trained on the targets and on a trained teacher's distributions.

Hinton et al. 2015 (arXiv 1503.02531). With the weight w and the temperature t, the loss of a position is

    (1 - w) * cross_entropy(logits, target) + w * t^2 * cross_entropy(logits / t, softmax(teacher_logits / t))

Up to a constant the second term is the Kullback-Leibler divergence from the teacher; t^2 keeps its gradient
of the same order at any temperature. The training curve contains the first cross-entropy only, so runs with
and without a teacher are comparable. Checkpoints do not contain the teacher; its digest is a setting of the
run and therefore part of the key of its checkpoints.

Shapes: B windows, T tokens, V vocabulary, F conditions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from coma_gen.config.rules import check_teacher
from coma_gen.config.schema import Params
from coma_gen.core.errors import Fault, UserError
from coma_gen.model.serialization import load_model
from coma_gen.shards.windows import IGNORE
from coma_gen.training.loss import compute_logits


@dataclass(frozen=True)
class Teacher:
    """A frozen model and the weight of its distributions in the loss.

    Attributes:
        model: The teacher, in evaluation mode.
        weight: Weight w of the soft-target loss, 0 to 1.
        temperature: Temperature t, which divides the logits of both models in the soft-target loss.
    """

    model: nn.Module
    weight: float
    temperature: float

    def compute_soft_targets(
        self, input_ids: Tensor, conditions: Tensor | None = None, *, bf16: bool
    ) -> Tensor:
        """Computes the teacher's distribution of the token after each input, without a gradient.

        Args:
            input_ids: int64 (B, T).
            conditions: int64 (B, T, F) condition bins of the student; None if unconditioned.
            bf16: Whether to run the teacher under bf16 autocast.

        Returns:
            Probabilities (B, T, V) at the temperature, in float32.
        """
        with torch.no_grad():
            logits = compute_logits(self.model, input_ids, bf16=bf16, conditions=conditions)
            return functional.softmax(logits / self.temperature, dim=-1)

    def distill(self, nll: Tensor, logits: Tensor, targets: Tensor, soft_targets: Tensor) -> Tensor:
        """Computes the loss of a micro-batch, summed over its positions that have a target.

        Args:
            nll: The summed negative log-likelihood of the targets, a scalar.
            logits: The student's logits (B, T, V).
            targets: int64 (B, T), `IGNORE` for padding.
            soft_targets: Result of `compute_soft_targets` for the same windows.
        """
        rows = soft_targets.masked_fill((targets == IGNORE)[..., None], 0.0)
        soft = functional.cross_entropy(
            (logits / self.temperature).flatten(0, 1), rows.flatten(0, 1), reduction="sum"
        )
        return (1 - self.weight) * nll + self.weight * self.temperature**2 * soft


def load_teacher(folder: Path, params: Params, *, vocabulary: str) -> tuple[Teacher, str]:
    """Loads the teacher of a run, on the CPU; returns it with its digest.

    Args:
        folder: The teacher's folder; its best weights are used.
        params: Settings of the run.
        vocabulary: Digest of the student's vocabulary file.

    Raises:
        UserError: If the model is damaged, is not the one that `train.teacher_digest` names, has another
            vocabulary, or cannot teach a model of this shape.
    """
    loaded = load_model(folder)
    manifest = loaded.manifest
    faults = list(check_teacher(manifest.digest, manifest.settings, params.model, params.train))
    theirs = manifest.files.get("tokenizer/vocabulary.json", "none")
    if theirs != vocabulary:
        rule = f"must have been trained with the tokens of this run (vocabulary {vocabulary[:12]})"
        remedy = "use the tokenizer section of params.yaml that it was trained with"
        faults.append(Fault("train.teacher", rule, f"vocabulary {theirs[:12]}", remedy))
    if faults:
        raise UserError(*faults)
    teacher = Teacher(
        model=loaded.model.requires_grad_(False),
        weight=params.train.teacher_weight,
        temperature=params.train.teacher_temperature,
    )
    return teacher, manifest.digest
