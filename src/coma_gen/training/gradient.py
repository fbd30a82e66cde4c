"""The gradient of one step: accumulated over micro-batches, weighted by tokens, clipped as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from coma_gen.determinism import torch_seed
from coma_gen.model.device import reseed
from coma_gen.shards.windows import IGNORE
from coma_gen.training.likelihood import nll_sum


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
) -> tuple[float, int]:
    """Adds to each parameter's `grad` that of the mean nll over all targets of the step, however it is cut.

    The windows of a step are numbered across its micro-batches, and the dropout of a micro-batch is seeded
    by (seed, step, its number): whoever works on it, and after whatever, draws the same.

    Args:
        model: in training mode.
        inputs: the step's input_ids (micro_batches * B, T).
        targets: the step's targets, same shape, `IGNORE` where there is nothing to predict.
        micro_batches: forward passes to cut the step into; divides its windows.
        seed: the run's seed.
        step: number of the optimizer step.
        device: where the model is.
        bf16: run the model under bf16 autocast.

    Returns:
        The summed nll in nats and the number of targets.
    """
    tokens = int((targets != IGNORE).sum())
    total = torch.zeros((), device=device)
    cut = zip(np.split(inputs, micro_batches), np.split(targets, micro_batches), strict=True)
    for number, (micro_inputs, micro_targets) in enumerate(cut):
        reseed(device, torch_seed(seed, "dropout", step, number))
        input_ids = torch.from_numpy(micro_inputs).to(device, non_blocking=True)
        wanted = torch.from_numpy(micro_targets).to(device, non_blocking=True)
        nll = nll_sum(model, input_ids, wanted, bf16=bf16)
        (nll / tokens).backward()  # type: ignore[no-untyped-call]
        total = total + nll.detach()
    return float(total), tokens


def clip_gradient(parameters: Sequence[nn.Parameter], clip_norm: float | None) -> float:
    """Scales the gradient down to `clip_norm` where it is longer; returns its norm before that.

    Args:
        parameters: what learns; the norm is over all of them together.
        clip_norm: the longest that the gradient may be; None leaves it as it is.
    """
    learning = [parameter for parameter in parameters if parameter.grad is not None]
    gradients: list[Tensor] = [parameter.grad for parameter in learning if parameter.grad is not None]
    together = None if gradients and gradients[0].device.type == "mps" else True
    norm = get_total_norm(gradients, foreach=together)
    if clip_norm is not None:
        clip_grads_with_norm_(learning, clip_norm, norm, foreach=together)
    return float(norm)
