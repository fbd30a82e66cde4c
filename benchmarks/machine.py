"""The peak rates of the machine in matrix products and in reading large matrices.

A lower bound on time ("floor") is the amount of work divided by such a rate, measured in the same run as the
model. The best rate over several shapes is used, so that no model can be faster than the floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.timing import Timing, Variant

PRODUCTS_FLOPS = 2e10
"""Approximate number of operations in one measurement of a product."""
MATRIX_SIDES = (1024, 2048, 4096)
"""Sides of the matrices whose reading is measured."""


@dataclass(frozen=True)
class Probe:
    """A variant whose amount of work is known.

    Attributes:
        variant: The variant to time.
        work: Operations or bytes per run.
    """

    variant: Variant
    work: float


def product_probes(*, rows: int, dim: int, dtype: torch.dtype, device: torch.device) -> dict[str, Probe]:
    """Matrix products of a model's shapes and a large square one; work in operations.

    Args:
        rows: Tokens per batch.
        dim: D.
        dtype: Data type of the factors.
        device: Device of the matrices.
    """
    shapes = [(rows, dim, 4 * dim), (rows, 4 * dim, dim), (4 * dim, 4 * dim, 4 * dim)]
    kind = str(dtype).removeprefix("torch.")
    probes = {}
    for m, k, n in shapes:
        left, right = (torch.randn(*shape, device=device).to(dtype) for shape in ((m, k), (n, k)))
        repeats = max(1, round(PRODUCTS_FLOPS / (2 * m * k * n)))

        def run(left: torch.Tensor = left, right: torch.Tensor = right, repeats: int = repeats) -> None:
            for _ in range(repeats):
                F.linear(left, right)

        probes[f"{kind} {m} x {k} x {n}"] = Probe(Variant(run), 2.0 * m * k * n * repeats)
    return probes


def reading_probes(*, bytes_read: int, device: torch.device) -> dict[str, Probe]:
    """Matrix-vector products with matrices of about the size of a model's weights; work in bytes.

    Args:
        bytes_read: Approximate bytes per run, which affects how much of them the caches hold.
        device: Device of the matrices.
    """
    probes = {}
    for side in MATRIX_SIDES:
        count = max(1, round(bytes_read / (4 * side * side)))
        matrices, vector = torch.randn(count, side, side, device=device), torch.randn(side, device=device)

        def run(matrices: torch.Tensor = matrices, vector: torch.Tensor = vector) -> None:
            with torch.inference_mode():
                for matrix in matrices:
                    torch.mv(matrix, vector)

        probes[f"{count} matrices {side} x {side}"] = Probe(Variant(run), 4.0 * count * side * side)
    return probes


def linear_layers_alone(model: nn.Module, *, rows: int) -> Variant:
    """Multiplies every linear layer's matrix with a few vectors, and does nothing else.

    Args:
        model: The model.
        rows: Number of vectors per matrix.
    """
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    inputs = {weight.shape[1]: torch.randn(rows, weight.shape[1], device=weight.device) for weight in weights}

    def run() -> None:
        with torch.inference_mode():
            for weight in weights:
                F.linear(inputs[weight.shape[1]], weight)

    return Variant(run)


def best_rate(probes: Mapping[str, Probe], timings: Mapping[str, Timing]) -> float:
    """The highest median rate among the probes, in their work per second."""
    return max(probe.work / timings[name].median for name, probe in probes.items())
