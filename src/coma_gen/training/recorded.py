"""The passes of a micro-batch as a CUDA graph: recorded once, then started by one call (`train.cuda_graphs`).

    plain      launch, launch, ... about a thousand times a step, each by Python
    recorded   copy the windows into the place that was recorded with, replay

The kernels are those of the plain path, in its order, so the bits are the same. Dropout draws from the
generator's seed as it is when the graph is replayed. Gradients are added to tensors that stay where they are:
they are set to zero between steps, not dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from coma_gen.core.errors import memory_fault
from coma_gen.model.cuda_graphs import Recorder, record_cuda_graph

AddGradient = Callable[..., Tensor]
"""Windows, their targets and, where the model has some, their conditions, on the device -> their summed nll;
adds its gradient to the parameters'."""

logger = logging.getLogger(__name__)


class RecordedGradient:
    """An `AddGradient` of windows of one shape.

    Args:
        add: what is recorded. The parameters have gradients afterwards, of no meaning yet.
        shape: of a micro-batch.
        pad_id: fills the windows that are recorded with.
        device: a CUDA device.
        record: does the recording.
        conditions: of the model.
    """

    def __init__(
        self,
        add: AddGradient,
        *,
        shape: tuple[int, int],
        pad_id: int,
        device: torch.device,
        record: Recorder,
        conditions: int = 0,
    ) -> None:
        self.given = [torch.full(shape, pad_id, device=device) for _ in range(2)]
        if conditions:
            self.given.append(torch.zeros((*shape, conditions), dtype=torch.int64, device=device))
        self._replay, self._nll = record(lambda: add(*self.given))

    def __call__(self, *given: Tensor) -> Tensor:
        """Replays the passes with these windows, targets and conditions."""
        for buffer, tensor in zip(self.given, given, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        self._replay()
        return self._nll.clone()


def recorded_or_plain(
    add: AddGradient,
    *,
    shape: tuple[int, int],
    pad_id: int,
    device: torch.device,
    record: Recorder = record_cuda_graph,
    conditions: int = 0,
) -> AddGradient:
    """`add` recorded, after a replay has shown that it can be; otherwise `add`, and a warning says why."""
    try:
        recorded = RecordedGradient(
            add, shape=shape, pad_id=pad_id, device=device, record=record, conditions=conditions
        )
        recorded(*recorded.given)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:  # whatever cannot be recorded; the plain path raises what is ours
        if memory_fault(error):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning("train.cuda_graphs: the passes cannot be recorded, going on without. %s", reason)
        return add
    return recorded
