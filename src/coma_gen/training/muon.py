"""Muon: momentum whose every matrix is made nearly orthogonal before it is a step (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon).

A gradient's few large singular values no longer hide its many small ones. The matrices of one shape are
worked on together, and Newton-Schulz runs on their small Gram matrices: of a 128 x 512 matrix only the first
and the last product see the long side. `torch.optim.Muon` computes the same in bfloat16, which processors
without it are slow at.

Shapes: K matrices of one shape, M rows, N columns, M <= N.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from coma_gen.training.distributed import SINGLE_PROCESS, Distributed

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Jordan's polynomial a x + b x^3 + c x^5: steep at 0, and close enough to 1 from there on."""

NEWTON_SCHULZ_STEPS = 5

SMALLEST_NORM = 1e-7
"""A matrix shorter than this is divided by this."""


def orthogonalize(matrices: Tensor, *, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """Brings the singular values of matrices (K, M, N) close to 1, and leaves their singular vectors.

    With G = X X^T and P = aI + bG + cG^2 a step is X <- P X, so G <- P G P, and the steps are the product of
    their P with the first X. All these are polynomials of one G, so their order makes no difference.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonalize(matrices.mT, steps=steps).mT
    linear, cubic, quintic = COEFFICIENTS
    scaled = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(SMALLEST_NORM)
    gram = torch.bmm(scaled, scaled.mT)
    product: Tensor | None = None
    for step in range(steps):
        factor = torch.bmm(gram, gram).mul_(quintic).add_(gram, alpha=cubic)
        factor.diagonal(dim1=-2, dim2=-1).add_(linear)
        product = factor if product is None else torch.bmm(factor, product)
        if step < steps - 1:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    return scaled if product is None else torch.bmm(product, scaled)


class Muon(Optimizer):
    """Nesterov momentum, orthogonalized; for the weights (rows, columns) of hidden linear layers.

    Each parameter group may name `parts`: a weight of so many stacked maps, such as queries, keys and values,
    is cut by rows and each is orthogonalized alone.

    Args:
        groups: dicts of `params`, and `parts` (1 where there is none).
        lr: the length of a step: a square matrix moves by it in each of its directions.
        momentum: share of the old direction that is kept.
        weight_decay: share of a weight, times the rate, that each step takes off.
        ranks: those who share the run; each orthogonalizes its part of the matrices.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        ranks: Distributed = SINGLE_PROCESS,
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": 1})
        self._ranks = ranks

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of all weights that have a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        by_shape: dict[torch.Size, list[tuple[nn.Parameter, dict[str, Any]]]] = defaultdict(list)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[self._parts(parameter, group).shape[1:]].append((parameter, group))
        for members in by_shape.values():
            self._step_alike(members)

    def _step_alike(self, members: Sequence[tuple[nn.Parameter, dict[str, Any]]]) -> None:
        """One step of weights whose parts have one shape."""
        directions = [self._direction(parameter, group) for parameter, group in members]
        steps = self._ranks.divide(orthogonalize, torch.cat(directions))
        by_weight = torch.split(steps, [len(parts) for parts in directions])
        for (parameter, group), step in zip(members, by_weight, strict=True):
            rows, columns = step.shape[1:]
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(
                step.reshape(parameter.shape), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5
            )

    def _direction(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """The momentum of a weight's parts (K, M, N), after this gradient and a look ahead."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        return self._parts(parameter.grad.lerp(state["momentum"], group["momentum"]), group)

    @staticmethod
    def _parts(weight: Tensor, group: dict[str, Any]) -> Tensor:
        """A weight as its parts (K, M, N)."""
        return weight.view(group["parts"], -1, weight.shape[-1])
