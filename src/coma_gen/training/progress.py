"""Counters and sums of a run, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class TrainingResult:
    """Result of a finished run.

    Attributes:
        best_state: Weights at the best validation loss, on the CPU.
        last_state: Weights after the last step, on the CPU.
        metrics: Steps, tokens (targets seen), epochs, parameters, train_loss (last row of the curve), best
            (step, validation_nll), last (validation_nll), stopped_early. Losses are in nats per token; there
            are no timings.
        curve: Path of curve.csv.
    """

    best_state: dict[str, Tensor]
    last_state: dict[str, Tensor]
    metrics: dict[str, Any]
    curve: Path


@dataclass
class Progress:
    """Counters and sums of a run, saved in checkpoints.

    Attributes:
        step: Number of optimizer steps done.
        tokens: Number of targets seen.
        loss_sum: Summed loss (nats) since the last row of the curve.
        loss_tokens: Number of targets in that sum.
        train_loss: Loss of the last row, nats per token.
        best_step: Step of the best validation; 0 before the first.
        best_nll: Best validation loss, nats per token.
        validation_nll: Last validation loss, nats per token.
        validations_without_better: Number of validations since the best one.
        stopped_early: Whether early stopping has ended the run.
        planned_steps: Number of steps planned for the deadline; None without a deadline.
        seconds: Training time so far, if there is a deadline.
    """

    step: int = 0
    tokens: int = 0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    train_loss: float | None = None
    best_step: int = 0
    best_nll: float | None = None
    validation_nll: float | None = None
    validations_without_better: int = 0
    stopped_early: bool = False
    planned_steps: int | None = None
    seconds: float = 0.0

    def count_step(self, tokens: int) -> None:
        """Counts a step with `tokens` targets."""
        self.step += 1
        self.tokens += tokens

    def add_loss(self, loss_sum: float, tokens: int) -> None:
        """Adds a loss of `loss_sum` nats over `tokens` targets to the current interval."""
        self.loss_sum += loss_sum
        self.loss_tokens += tokens

    def close_interval(self) -> float:
        """Returns the mean loss since the last call (nats per token) and starts the next interval."""
        self.train_loss = self.loss_sum / self.loss_tokens
        self.loss_sum, self.loss_tokens = 0.0, 0
        return self.train_loss

    def count_validation(self, nll: float) -> bool:
        """Records the validation loss of this step; returns whether it is lower than all before."""
        self.validation_nll = nll
        if self.best_nll is not None and nll >= self.best_nll:
            self.validations_without_better += 1
            return False
        self.best_step, self.best_nll, self.validations_without_better = self.step, nll, 0
        return True

    def metrics(self, *, parameters: int, split_tokens: int) -> dict[str, Any]:
        """Returns the metrics of a finished run, see `TrainingResult`.

        Args:
            parameters: Number of model parameters.
            split_tokens: Number of tokens of the train split.
        """
        return {
            "steps": self.step,
            "tokens": self.tokens,
            "epochs": self.tokens / split_tokens,
            "parameters": parameters,
            "train_loss": self.train_loss,
            "best": {"step": self.best_step, "validation_nll": self.best_nll},
            "last": {"validation_nll": self.validation_nll},
            "stopped_early": self.stopped_early,
        }
