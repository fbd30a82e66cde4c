"""A model while it learns, with all that a run needs to go on: what is taken up from a checkpoint and left in
one.
"""

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
    learning_parameters,
    optimizer_tensors,
    restore_optimizers,
)
from coma_gen.training.progress import Progress


class TrainState:
    """A model, its optimizers, and what it has come to.

    The first rank alone keeps the best weights, and reads and writes the resume folder.

    Attributes:
        model: on its device.
        optimizers: over the parameters that learn.
        learning: those parameters.
        progress: counters and sums, the same on all ranks.
        best: the weights at the best validation, on the CPU; empty before the first.
        saved_step: of the newest checkpoint; 0 for none.
    """

    def __init__(
        self, model: nn.Module, params: TrainParams, *, resume: Path, key: str, ranks: Distributed
    ) -> None:
        self.model, self._resume, self._key, self._ranks = model, resume, key, ranks
        self.optimizers = build_optimizers(model, params, ranks)
        self.learning = learning_parameters(self.optimizers)
        self.progress = Progress()
        self.best: Mapping[str, Tensor] = {}
        self.saved_step = 0

    def restore(self) -> str:
        """Takes up the newest checkpoint, if there is one; returns the curve up to it.

        Raises:
            UserError: as `latest_checkpoint`, and where this rank's key is not the first one's.
        """
        checkpoint = latest_checkpoint(self._resume, key=self._key) if self._ranks.is_first else None
        if checkpoint is not None:
            self.model.load_state_dict(dict(checkpoint.weights))
            restore_optimizers(self.optimizers, self.model, checkpoint.optimizer)
            self.progress = Progress(**checkpoint.progress)
            self.best = checkpoint.best
        if self._ranks.size > 1:
            self._follow_first({} if checkpoint is None else checkpoint.optimizer)
        self.saved_step = self.progress.step
        return HEADER if checkpoint is None else checkpoint.curve

    def _follow_first(self, optimizer: Mapping[str, Tensor]) -> None:
        """Takes up what the first rank has restored, but for the weights: sharing the model brings those."""
        note = {"key": self._key, "progress": asdict(self.progress)}
        told = json.loads(self._ranks.from_first(json.dumps(note).encode()))
        if told["key"] != self._key:
            rule = "must have the code, params, data and libraries of the first rank"
            got = f"others (key {self._key[:12]}, not {told['key'][:12]})"
            raise UserError(Fault(f"rank {self._ranks.rank} of {self._ranks.size}", rule, got))
        tensors = tensors_from_bytes(self._ranks.from_first(tensors_to_bytes(dict(optimizer))))
        if not self._ranks.is_first:
            restore_optimizers(self.optimizers, self.model, tensors)
            self.progress = Progress(**told["progress"])

    def save(self, curve: str, weights: Mapping[str, Tensor]) -> None:
        """Leaves a checkpoint of this step, unless there is one.

        Args:
            curve: content of the curve's file up to this step.
            weights: those of this step.
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
        """Notes a validation of this step, and keeps the weights where it is the best so far."""
        if self.progress.count_validation(nll) and self._ranks.is_first:
            self.best = self.weights()

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights on the CPU."""
        return copy_to_cpu(self.model.state_dict())
