"""What a step tells of itself, left on the device until somebody reads it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coma_gen.training.progress import Progress

MAX_LOSS = 100.0
"""Nats per token. A model that knows nothing has ln(vocabulary), about 6; what is here gives the right token
e^-100.
"""


@dataclass(frozen=True)
class StepFigures:
    """Of one step.

    Attributes:
        step: its number.
        tokens: targets of all ranks.
        nlls: their summed nll in nats, in parts, each a scalar.
        grad_norm: before clipping, a scalar.
    """

    step: int
    tokens: int
    nlls: Sequence[Tensor]
    grad_norm: Tensor


def read_figures(
    steps: Sequence[StepFigures], *, at_once: bool
) -> Iterator[tuple[StepFigures, tuple[float, float]]]:
    """The summed nll and the norm of each step as numbers.

    Args:
        steps: of one device.
        at_once: bring all to the CPU in one copy, for which it waits once.
    """
    scalars = [scalar for figures in steps for scalar in (*figures.nlls, figures.grad_norm)]
    values = iter(torch.stack(scalars).tolist() if at_once and scalars else map(float, scalars))
    for figures in steps:
        yield figures, (sum(next(values) for _ in figures.nlls), next(values))


class StepLosses:
    """The losses of a run's steps, counted once they are read.

    Attributes:
        loss: of the last step that was read, nats per token.
        grad_norm: of that step, before clipping.

    Args:
        progress: where they are counted.
        diverged: (step, rule, what there is instead) -> what to raise at a step that gave no number.
    """

    def __init__(self, progress: Progress, *, diverged: Callable[[int, str, str], BaseException]) -> None:
        self._progress, self._diverged = progress, diverged
        self._unread: list[StepFigures] = []
        self.loss, self.grad_norm = 0.0, 0.0

    def add(self, figures: StepFigures) -> None:
        """Notes a step, whose figures may still be on the device."""
        self._unread.append(figures)

    def read(self, *, at_once: bool) -> None:
        """Counts the losses of the steps that are not read yet, and looks whether they are numbers.

        Args:
            at_once: as for `read_figures`.

        Raises:
            UserError: when loss or gradient of one is not finite, or its loss has exploded.
        """
        for figures, (loss_sum, grad_norm) in read_figures(self._unread, at_once=at_once):
            loss = loss_sum / figures.tokens
            if not (math.isfinite(loss_sum) and math.isfinite(grad_norm)):
                got = f"loss {loss:g} and gradient norm {grad_norm:g}"
                raise self._diverged(figures.step, "loss and gradient must be finite", got)
            if loss > MAX_LOSS:
                rule = f"loss must stay below {MAX_LOSS:g} nats per token"
                raise self._diverged(figures.step, rule, f"{loss:g}")
            self._progress.add_loss(loss_sum, figures.tokens)
            self.loss, self.grad_norm = loss, grad_norm
        self._unread.clear()
