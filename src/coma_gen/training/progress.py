"""What a run knows of itself beside its weights, and what it hands back at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        best_state: the weights at the best validation, on the CPU.
        last_state: the weights after the last step, on the CPU.
        metrics: steps, tokens (targets seen), epochs, parameters, train_loss (last row of the curve), best
            (step, validation_nll), last (validation_nll), stopped_early. Losses in nats per token; no
            times.
        curve: the curve's file.
    """

    best_state: dict[str, Tensor]
    last_state: dict[str, Tensor]
    metrics: dict[str, Any]
    curve: Path


@dataclass
class Progress:
    """The counters and sums of a run; with the weights and the optimizer's state, all there is to resume.

    Attributes:
        step: optimizer steps done.
        tokens: targets seen.
        loss_sum: nats summed since the last row of the curve.
        loss_tokens: targets of that sum.
        train_loss: of the last row, nats per token.
        best_step: step of the best validation; 0 before the first.
        best_nll: what it gave, nats per token.
        validation_nll: what the last validation gave, nats per token.
        validations_without_better: since the best one.
        stopped_early: whether early stopping has ended the run.
        planned_steps: those of the plan that a deadline has made; None without one.
        seconds: spent up to here, where there is a deadline.
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
        """Adds `loss_sum` nats over `tokens` targets to the interval."""
        self.loss_sum += loss_sum
        self.loss_tokens += tokens

    def close_interval(self) -> float:
        """The mean loss since the last call, nats per token; the next interval starts."""
        self.train_loss = self.loss_sum / self.loss_tokens
        self.loss_sum, self.loss_tokens = 0.0, 0
        return self.train_loss

    def count_validation(self, nll: float) -> bool:
        """Notes a validation of this step; returns whether it is the best so far (an equal one is not)."""
        self.validation_nll = nll
        if self.best_nll is not None and nll >= self.best_nll:
            self.validations_without_better += 1
            return False
        self.best_step, self.best_nll, self.validations_without_better = self.step, nll, 0
        return True

    def metrics(self, *, parameters: int, split_tokens: int) -> dict[str, Any]:
        """The metrics of a finished run, as `TrainingResult` has them.

        Args:
            parameters: of the model.
            split_tokens: of the train split.
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
