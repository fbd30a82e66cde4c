"""Loss and gradient norm of training steps, left on the device until they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coma_gen.training.progress import Progress

MAX_LOSS = 100.0
"""Loss in nats per token above which training has diverged; a uniform model has ln(vocabulary), about 6."""


@dataclass(frozen=True)
class StepFigures:
    """Loss and gradient norm of one step.

    Attributes:
        step: Optimizer step.
        tokens: Number of targets of all ranks.
        nlls: Summed nll (nats) of each micro-batch, as scalars.
        grad_norm: Gradient norm before clipping, a scalar.
    """

    step: int
    tokens: int
    nlls: Sequence[Tensor]
    grad_norm: Tensor


def read_figures(
    steps: Sequence[StepFigures], *, at_once: bool
) -> Iterator[tuple[StepFigures, tuple[float, float]]]:
    """Yields the figures of each step with its summed nll and gradient norm as numbers.

    Args:
        steps: Figures on one device.
        at_once: Whether to copy all to the CPU together, with one synchronization.
    """
    scalars = [scalar for figures in steps for scalar in (*figures.nlls, figures.grad_norm)]
    values = iter(torch.stack(scalars).tolist() if at_once and scalars else map(float, scalars))
    for figures in steps:
        yield figures, (sum(next(values) for _ in figures.nlls), next(values))


class StepLosses:
    """Collects the figures of steps and adds their losses to the progress when read.

    Attributes:
        loss: Loss of the last step read (nats per token).
        grad_norm: Gradient norm of that step, before clipping.

    Args:
        progress: Progress that losses are added to.
        build_error: (step, rule, got) -> exception to raise at a diverged step.
    """

    def __init__(self, progress: Progress, *, build_error: Callable[[int, str, str], BaseException]) -> None:
        self._progress, self._build_error = progress, build_error
        self._unread: list[StepFigures] = []
        self.loss, self.grad_norm = 0.0, 0.0

    def add(self, figures: StepFigures) -> None:
        """Adds a step, whose figures may still be on the device."""
        self._unread.append(figures)

    def read(self, *, at_once: bool) -> None:
        """Reads the figures of unread steps, checks them and adds their losses to the progress.

        Args:
            at_once: As in `read_figures`.

        Raises:
            UserError: If a loss or gradient norm is not finite, or a loss exceeds `MAX_LOSS`.
        """
        for figures, (loss_sum, grad_norm) in read_figures(self._unread, at_once=at_once):
            loss = loss_sum / figures.tokens
            if not (math.isfinite(loss_sum) and math.isfinite(grad_norm)):
                got = f"loss {loss:g} and gradient norm {grad_norm:g}"
                raise self._build_error(figures.step, "loss and gradient must be finite", got)
            if loss > MAX_LOSS:
                rule = f"loss must stay below {MAX_LOSS:g} nats per token"
                raise self._build_error(figures.step, rule, f"{loss:g}")
            self._progress.add_loss(loss_sum, figures.tokens)
            self.loss, self.grad_norm = loss, grad_norm
        self._unread.clear()
