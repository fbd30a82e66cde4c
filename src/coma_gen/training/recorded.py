"""Forward and backward pass of a micro-batch as a CUDA graph (`train.cuda_graphs`).

    eager      about a thousand kernel launches per step from Python
    recorded   copy the windows into the static input buffers, replay

The kernels and their order are those of the eager path, so results are bitwise equal. Dropout uses the
generator's seed at the time of the replay. Gradients accumulate in static tensors, which are zeroed between
steps instead of freed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from coma_gen.core.errors import memory_fault
from coma_gen.model.cuda_graphs import Recorder, record_cuda_graph

AddGradient = Callable[..., Tensor]
"""(windows, targets[, conditions]) on the device -> summed nll, whose gradient is accumulated in `grad`."""

logger = logging.getLogger(__name__)


class RecordedGradient:
    """An `AddGradient` recorded for one micro-batch shape.

    Args:
        add: Function to record; recording leaves meaningless gradients in the parameters.
        shape: Shape of a micro-batch.
        pad_id: Id that fills the windows during recording.
        device: CUDA device.
        record: Recorder of CUDA graphs.
        conditions: Number of conditions of the model.
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
        self.inputs = [torch.full(shape, pad_id, device=device) for _ in range(2)]
        if conditions:
            self.inputs.append(torch.zeros((*shape, conditions), dtype=torch.int64, device=device))
        self._replay, self._nll = record(lambda: add(*self.inputs))

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Replays the graph with these windows, targets and conditions."""
        for buffer, tensor in zip(self.inputs, tensors, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        self._replay()
        return self._nll.clone()


def try_recording(
    add: AddGradient,
    *,
    shape: tuple[int, int],
    pad_id: int,
    device: torch.device,
    record: Recorder = record_cuda_graph,
    conditions: int = 0,
) -> AddGradient:
    """Records `add` and tests a replay; on failure logs the reason and returns `add` itself."""
    try:
        recorded = RecordedGradient(
            add, shape=shape, pad_id=pad_id, device=device, record=record, conditions=conditions
        )
        recorded(*recorded.inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:  # recording fails in many ways; the eager path raises our own errors again
        if memory_fault(error):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning(
            "train.cuda_graphs: the passes cannot be recorded; training runs in eager mode. %s", reason
        )
        return add
    return recorded
