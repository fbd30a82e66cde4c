"""Queue of training batches in CPU memory, drawn on demand or one step ahead.

On a device other than the CPU, a thread draws the windows of the next step; for CUDA it draws them into
pinned memory, from which they are copied asynchronously. Windows are a function of the step, so prefetching
does not change them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from coma_gen.shards.windows import IGNORE, Tokens


class Batch(NamedTuple):
    """Windows of one rank in one step.

    Attributes:
        input_ids: int64 (K, T).
        targets: int64 (K, T), `IGNORE` for padding.
        tokens: Number of targets that are not `IGNORE`.
        conditions: int64 (K, T, F) condition bins; None for a model without conditions.
    """

    input_ids: Tensor
    targets: Tensor
    tokens: int
    conditions: Tensor | None = None


class BatchQueue:
    """Draws batches, one step ahead if the device is not the CPU.

    Args:
        draw: Step -> input_ids, targets and, for a model with conditions, condition bins.
        device: Device that the batches will be copied to.
        last: Last step of the run; later steps are not prefetched.
    """

    def __init__(self, draw: Callable[[int], tuple[Tokens, ...]], *, device: torch.device, last: int) -> None:
        self._draw, self._last = draw, last
        self._is_pinned = device.type == "cuda"
        self._thread = ThreadPoolExecutor(1, "windows") if device.type != "cpu" else None
        self._ahead: dict[int, Future[Batch]] = {}

    def take(self, step: int) -> Batch:
        """Returns the batch of a step and starts drawing the next one."""
        prefetched = self._ahead.pop(step, None)
        batch = self._make(step) if prefetched is None else prefetched.result()
        if self._thread is not None and step < self._last:
            self._ahead = {step + 1: self._thread.submit(self._make, step + 1)}
        return batch

    def _make(self, step: int) -> Batch:
        arrays = self._draw(step)
        tensors = [torch.from_numpy(array) for array in arrays]
        if self._is_pinned:
            tensors = [tensor.pin_memory() for tensor in tensors]
        input_ids, targets, *conditions = tensors
        return Batch(input_ids, targets, int((arrays[1] != IGNORE).sum()), *conditions)

    def __enter__(self) -> BatchQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
