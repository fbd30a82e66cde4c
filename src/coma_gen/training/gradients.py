"""The gradient of one step: summed over micro-batches and ranks, weighted by tokens, clipped as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from coma_gen.core.seeding import torch_seed
from coma_gen.model.device import reseed
from coma_gen.training.batches import Batch
from coma_gen.training.distillation import Teacher
from coma_gen.training.loss import compute_logits, sum_cross_entropy
from coma_gen.training.recorded import AddGradient

EPSILON = 1e-6
"""Added to the norm that a clipped gradient is divided by, as in torch's own clipping."""


def add_gradient(
    model: nn.Module,
    input_ids: Tensor,
    targets: Tensor,
    conditions: Tensor | None = None,
    *,
    bf16: bool,
    teacher: Teacher | None = None,
) -> Tensor:
    """Adds the gradient of the summed loss of these windows to each parameter's `grad`; returns the summed
    nll, which is that loss unless there is a teacher.
    """
    logits = compute_logits(model, input_ids, bf16=bf16, conditions=conditions)
    loss = nll = sum_cross_entropy(logits, targets)
    if teacher is not None:
        loss = teacher.distill(nll, logits, targets, teacher.soft_targets(input_ids, conditions, bf16=bf16))
    loss.backward()  # type: ignore[no-untyped-call]
    return nll.detach()


def accumulate_gradient(
    model: nn.Module,
    batch: Batch,
    *,
    micro_batches: int,
    seed: int,
    step: int,
    device: torch.device,
    bf16: bool,
    first_micro_batch: int = 0,
    add: AddGradient | None = None,
    teacher: Teacher | None = None,
) -> list[Tensor]:
    """Adds to each parameter's `grad` that of the summed nll of these windows, however they are cut.

    The micro-batches of a step are numbered across its ranks, and the dropout of each is seeded by (seed,
    step, its number): whoever works on it, and after whatever, draws the same. Under
    DistributedDataParallel the ranks exchange their gradients once, in the last backward pass, and each has
    the average over the ranks.

    Args:
        model: in training mode.
        batch: the windows.
        micro_batches: forward passes to cut the windows into; divides their number.
        seed: the run's seed.
        step: number of the optimizer step.
        device: where the model is.
        bf16: run the model under bf16 autocast.
        first_micro_batch: number in the step of the first of these.
        add: the passes of a micro-batch; None for `add_gradient`.
        teacher: Teacher of `add_gradient`; None for none.

    Returns:
        The summed nll of each micro-batch in nats, on the device: it may still be at work.
    """
    add = partial(add_gradient, model, bf16=bf16, teacher=teacher) if add is None else add
    sums = []
    size = len(batch.input_ids) // micro_batches
    given = [batch.input_ids, batch.targets] + ([] if batch.conditions is None else [batch.conditions])
    for number, micro_batch in enumerate(zip(*(torch.split(each, size) for each in given), strict=True)):
        reseed(device, torch_seed(seed, "dropout", step, first_micro_batch + number))
        on_device = [each.to(device, non_blocking=True) for each in micro_batch]
        skips_sync = number < micro_batches - 1 and isinstance(model, DistributedDataParallel)
        with model.no_sync() if skips_sync else nullcontext():  # type: ignore[operator]
            sums.append(add(*on_device))
    return sums


def clip_gradient(
    parameters: Sequence[nn.Parameter], clip_norm: float | None, *, divisor: float = 1.0
) -> Tensor:
    """Divides the gradient, then scales it down to `clip_norm` where it is longer.

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
    return norm
