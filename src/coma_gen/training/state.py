"""Training state: model, optimizers and progress, saved to and restored from checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from coma_gen.config.schema import TrainParams
from coma_gen.core.errors import Fault, UserError
from coma_gen.training.checkpoint import Checkpoint, copy_to_cpu, latest_checkpoint, save_checkpoint
from coma_gen.training.distributed import Distributed
from coma_gen.training.metrics_log import HEADER
from coma_gen.training.optimizer import (
    build_optimizers,
    optimizer_tensors,
    restore_optimizers,
    trainable_parameters,
)
from coma_gen.training.progress import Progress


class TrainState:
    """Model, optimizers, progress and best weights of a run.

    Only the first rank holds the best weights and accesses the resume folder.

    Attributes:
        model: The model, on its device.
        optimizers: Optimizers of the trainable parameters.
        trainable: The trainable parameters.
        progress: Counters and sums, equal on all ranks.
        best: Weights at the best validation loss, on the CPU; empty before the first validation.
        saved_step: Step of the newest checkpoint; 0 for none.
    """

    def __init__(
        self, model: nn.Module, params: TrainParams, *, resume: Path, key: str, ranks: Distributed
    ) -> None:
        self.model, self._resume, self._key, self._ranks = model, resume, key, ranks
        self.optimizers = build_optimizers(model, params, ranks)
        self.trainable = trainable_parameters(self.optimizers)
        self.progress = Progress()
        self.best: Mapping[str, Tensor] = {}
        self.saved_step = 0

    def restore(self) -> str:
        """Loads the newest checkpoint, if there is one; returns the curve up to its step.

        Raises:
            UserError: As in `latest_checkpoint`, and if this rank's key differs from the first rank's.
        """
        checkpoint = latest_checkpoint(self._resume, key=self._key) if self._ranks.is_first else None
        if checkpoint is not None:
            self.model.load_state_dict(dict(checkpoint.weights))
            restore_optimizers(self.optimizers, self.model, checkpoint.optimizer)
            self.progress = Progress(**checkpoint.progress)
            self.best = checkpoint.best
        if self._ranks.size > 1:
            self._synchronize({} if checkpoint is None else checkpoint.optimizer)
        self.saved_step = self.progress.step
        return HEADER if checkpoint is None else checkpoint.curve

    def _synchronize(self, optimizer: Mapping[str, Tensor]) -> None:
        """Broadcasts the first rank's progress and optimizers; `Distributed.wrap_model` does the weights."""
        own = {"key": self._key, "progress": asdict(self.progress)}
        first = json.loads(self._ranks.broadcast(json.dumps(own).encode()))
        if first["key"] != self._key:
            rule = "must have the code, params, data and libraries of the first rank"
            got = f"others (key {self._key[:12]}, not {first['key'][:12]})"
            raise UserError(Fault(f"rank {self._ranks.rank} of {self._ranks.size}", rule, got))
        tensors = tensors_from_bytes(self._ranks.broadcast(tensors_to_bytes(dict(optimizer))))
        if not self._ranks.is_first:
            restore_optimizers(self.optimizers, self.model, tensors)
            self.progress = Progress(**first["progress"])

    def save(self, curve: str, weights: Mapping[str, Tensor]) -> None:
        """Saves a checkpoint of this step, unless there is one.

        Args:
            curve: Content of curve.csv up to this step.
            weights: Weights of this step.
        """
        if self.progress.step == self.saved_step:
            return
        if self._ranks.is_first:
            checkpoint = Checkpoint(
                step=self.progress.step,
                weights=weights,
                best=self.best,
                optimizer=optimizer_tensors(self.optimizers, self.model),
                progress=asdict(self.progress),
                curve=curve,
            )
            save_checkpoint(self._resume, checkpoint, key=self._key)
        self.saved_step = self.progress.step

    def count_validation(self, nll: float) -> None:
        """Records a validation loss, and the weights if it is the best so far."""
        if self.progress.count_validation(nll) and self._ranks.is_first:
            self.best = self.weights()

    def weights(self) -> dict[str, Tensor]:
        """Returns a copy of the weights on the CPU."""
        return copy_to_cpu(self.model.state_dict())
