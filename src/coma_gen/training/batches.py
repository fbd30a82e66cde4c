"""The windows of each step, in the CPU's memory: drawn when they are asked for, or a step ahead.

Where another device works, a thread draws the next step's windows meanwhile and lays them in pinned memory,
from where they are copied without waiting. Windows are a function of the step, so that it makes no
difference to them who draws them, and when.
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
    """A rank's windows of a step.

    Attributes:
        input_ids: int64 (K, T).
        targets: same shape, `IGNORE` where there is nothing to predict.
        tokens: targets to predict.
        conditions: int64 (K, T, F), what is told of each position; None for a model without conditions.
    """

    input_ids: Tensor
    targets: Tensor
    tokens: int
    conditions: Tensor | None = None


class BatchQueue:
    """Gives the batch of a step.

    Args:
        draw: step -> input_ids and targets, and conditions where the model has some.
        device: where they will go.
        last: no step after this one is drawn ahead.
    """

    def __init__(self, draw: Callable[[int], tuple[Tokens, ...]], *, device: torch.device, last: int) -> None:
        self._draw, self._last = draw, last
        self._is_pinned = device.type == "cuda"
        self._thread = ThreadPoolExecutor(1, "windows") if device.type != "cpu" else None
        self._ahead: dict[int, Future[Batch]] = {}

    def take(self, step: int) -> Batch:
        """The batch of a step; that of the next one is begun."""
        waiting = self._ahead.pop(step, None)
        batch = self._make(step) if waiting is None else waiting.result()
        if self._thread is not None and step < self._last:
            self._ahead = {step + 1: self._thread.submit(self._make, step + 1)}
        return batch

    def _make(self, step: int) -> Batch:
        drawn = self._draw(step)
        given = [torch.from_numpy(each) for each in drawn]
        inputs, wanted, *told = [each.pin_memory() for each in given] if self._is_pinned else given
        return Batch(inputs, wanted, int((drawn[1] != IGNORE).sum()), *told)

    def __enter__(self) -> BatchQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
