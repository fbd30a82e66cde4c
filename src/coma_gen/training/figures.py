"""What a step tells of itself, left on the device until somebody reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
