"""Gradient of one step: accumulated over micro-batches and ranks, then clipped by global norm."""

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
"""Added to the norm in the clipping factor, as in `torch.nn.utils.clip_grad_norm_`."""


def add_gradient(
    model: nn.Module,
    input_ids: Tensor,
    targets: Tensor,
    conditions: Tensor | None = None,
    *,
    bf16: bool,
    teacher: Teacher | None = None,
) -> Tensor:
    """Accumulates the gradient of the windows' summed loss in the parameters' `grad`.

    Returns:
        The summed nll (nats), which is the loss itself without a teacher.
    """
    logits = compute_logits(model, input_ids, bf16=bf16, conditions=conditions)
    loss = nll = sum_cross_entropy(logits, targets)
    if teacher is not None:
        loss = teacher.distill(
            nll, logits, targets, teacher.compute_soft_targets(input_ids, conditions, bf16=bf16)
        )
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
    """Accumulates the gradient of the batch's summed loss in the parameters' `grad` over micro-batches.

    Micro-batches are numbered across the ranks of a step, and the dropout of each is seeded by (seed, step,
    number), independent of the rank that computes it. Under DistributedDataParallel the ranks exchange
    gradients once, in the last backward pass, and each receives the average.

    Args:
        model: The model, in training mode.
        batch: Windows of this rank.
        micro_batches: Number of forward passes; must divide the number of windows.
        seed: Seed of the run.
        step: Optimizer step.
        device: Device of the model.
        bf16: Whether to run the model under bf16 autocast.
        first_micro_batch: Number in the step of this rank's first micro-batch.
        add: Forward and backward pass of a micro-batch; None for `add_gradient`.
        teacher: Teacher for `add_gradient`, or None.

    Returns:
        Summed nll of each micro-batch (nats), as scalars on the device, without synchronization.
    """
    add = partial(add_gradient, model, bf16=bf16, teacher=teacher) if add is None else add
    sums = []
    size = len(batch.input_ids) // micro_batches
    parts = [batch.input_ids, batch.targets] + ([] if batch.conditions is None else [batch.conditions])
    for number, micro_batch in enumerate(zip(*(torch.split(part, size) for part in parts), strict=True)):
        reseed(device, torch_seed(seed, "dropout", step, first_micro_batch + number))
        on_device = [tensor.to(device, non_blocking=True) for tensor in micro_batch]
        skips_sync = number < micro_batches - 1 and isinstance(model, DistributedDataParallel)
        with model.no_sync() if skips_sync else nullcontext():  # type: ignore[operator]
            sums.append(add(*on_device))
    return sums


def clip_gradient(
    parameters: Sequence[nn.Parameter], clip_norm: float | None, *, divisor: float = 1.0
) -> Tensor:
    """Divides the gradient in place and clips it by global norm; returns the norm before clipping.

    Args:
        parameters: Trainable parameters; the norm is over all of them.
        clip_norm: Maximum norm; None disables clipping.
        divisor: Number of targets of the step, which turns the summed gradient into a mean.
    """
    gradients: list[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = None if gradients and gradients[0].device.type == "mps" else True
    norm = get_total_norm(gradients, foreach=together) / divisor
    factor = torch.ones_like(norm) if clip_norm is None else (clip_norm / (norm + EPSILON)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor / divisor)
    return norm
