"""The gradient of one step: summed over micro-batches and ranks, weighted by tokens, clipped as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from coma_gen.core.seeding import torch_seed
from coma_gen.model.device import reseed
from coma_gen.shards.windows import IGNORE
from coma_gen.training.loss import sum_nll

EPSILON = 1e-6
"""Added to the norm that a clipped gradient is divided by, as in torch's own clipping."""


def accumulate_gradient(
    model: nn.Module,
    inputs: NDArray[np.int64],
    targets: NDArray[np.int64],
    *,
    micro_batches: int,
    seed: int,
    step: int,
    device: torch.device,
    bf16: bool,
    first_micro_batch: int = 0,
) -> tuple[float, int]:
    """Adds to each parameter's `grad` that of the summed nll of these windows, however they are cut.

    The micro-batches of a step are numbered across its ranks, and the dropout of each is seeded by (seed,
    step, its number): whoever works on it, and after whatever, draws the same. Under
    DistributedDataParallel the ranks exchange their gradients once, in the last backward pass, and each has
    the average over the ranks.

    Args:
        model: in training mode.
        inputs: input_ids (micro_batches * B, T).
        targets: same shape, `IGNORE` where there is nothing to predict.
        micro_batches: forward passes to cut the windows into; divides their number.
        seed: the run's seed.
        step: number of the optimizer step.
        device: where the model is.
        bf16: run the model under bf16 autocast.
        first_micro_batch: number in the step of the first of these.

    Returns:
        The summed nll in nats and the number of targets, of these windows.
    """
    sums = []
    cut = zip(np.split(inputs, micro_batches), np.split(targets, micro_batches), strict=True)
    for number, (micro_inputs, micro_targets) in enumerate(cut):
        reseed(device, torch_seed(seed, "dropout", step, first_micro_batch + number))
        input_ids = torch.from_numpy(micro_inputs).to(device, non_blocking=True)
        wanted = torch.from_numpy(micro_targets).to(device, non_blocking=True)
        skips_sync = number < micro_batches - 1 and isinstance(model, DistributedDataParallel)
        with model.no_sync() if skips_sync else nullcontext():  # type: ignore[operator]
            nll = sum_nll(model, input_ids, wanted, bf16=bf16)
            nll.backward()  # type: ignore[no-untyped-call]
        sums.append(nll.detach())
    return sum(map(float, sums)), int((targets != IGNORE).sum())


def clip_gradient(
    parameters: Sequence[nn.Parameter], clip_norm: float | None, *, divisor: float = 1.0
) -> float:
    """Divides the gradient, then scales it down to `clip_norm` where it is longer; returns its norm between.

    Args:
        parameters: what learns; the norm is over all of them together.
        clip_norm: the longest that the gradient may be; None leaves it as it is.
        divisor: what makes a mean of a sum: the targets of the step.
    """
    gradients: list[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = None if gradients and gradients[0].device.type == "mps" else True
    norm = get_total_norm(gradients, foreach=together) / divisor
    factor = torch.ones_like(norm) if clip_norm is None else (clip_norm / (norm + EPSILON)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor / divisor)
    return float(norm)
