"""Muon: momentum with approximately orthogonalized updates (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon).

Orthogonalization gives the many small singular values of a gradient the same weight as the few large ones.
Matrices of one shape are batched, and Newton-Schulz runs on their Gram matrices, so only the first and the
last product involve the long side. `torch.optim.Muon` computes the same in bfloat16, which is slow on
processors without bfloat16 instructions.

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
"""Coefficients of Jordan's polynomial a x + b x^3 + c x^5: steep at 0 and close to 1 up to 1."""

NEWTON_SCHULZ_STEPS = 5

SMALLEST_NORM = 1e-7
"""Lower bound of the norm that matrices are divided by."""


def orthogonalize(matrices: Tensor, *, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """Brings the singular values of matrices (K, M, N) close to 1 and keeps their singular vectors.

    With G = X X^T and P = aI + bG + cG^2, a step is X <- P X and G <- P G P, so the result is the product of
    all P with the first X. All P are polynomials of the same G and commute.
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
    """Orthogonalized Nesterov momentum for the weights (rows, columns) of hidden linear layers.

    A parameter group may set `parts`, the number of matrices fused in each weight (such as queries, keys and
    values); the weight is split by rows and each part is orthogonalized separately.

    Args:
        groups: Dicts with `params` and optionally `parts` (default 1).
        lr: Learning rate, the spectral norm of the update of a square matrix.
        momentum: Momentum coefficient.
        weight_decay: Decoupled weight decay coefficient.
        ranks: The ranks of the run; each orthogonalizes its part of the matrices.
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
        """Updates all weights that have a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        by_shape: dict[torch.Size, list[tuple[nn.Parameter, dict[str, Any]]]] = defaultdict(list)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[self._parts(parameter, group).shape[1:]].append((parameter, group))
        for members in by_shape.values():
            self._step_batch(members)

    def _step_batch(self, members: Sequence[tuple[nn.Parameter, dict[str, Any]]]) -> None:
        """Updates weights whose parts have the same shape."""
        directions = [self._update_momentum(parameter, group) for parameter, group in members]
        steps = self._ranks.divide(orthogonalize, torch.cat(directions))
        by_weight = torch.split(steps, [len(parts) for parts in directions])
        for (parameter, group), step in zip(members, by_weight, strict=True):
            rows, columns = step.shape[1:]
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(
                step.reshape(parameter.shape), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5
            )

    def _update_momentum(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """Updates the momentum; returns the Nesterov direction of the weight's parts (K, M, N)."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        return self._parts(parameter.grad.lerp(state["momentum"], group["momentum"]), group)

    @staticmethod
    def _parts(weight: Tensor, group: dict[str, Any]) -> Tensor:
        """Views a weight as its parts (K, M, N)."""
        return weight.view(group["parts"], -1, weight.shape[-1])
