"""CUDA graphs: kernels are recorded once, then launched by one call instead of one call per kernel.

A replay runs the recorded kernels in order on the recorded addresses, so its results are bitwise those of
the original calls. Inputs that change between replays must be modified in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP_PASSES = 3
"""Passes on a side stream before recording, as torch requires."""

Recorder = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records a function; returns a function that replays it and the tensor that holds each replay's result."""


def record_cuda_graph(
    work: Callable[[], Tensor], *, passes: int = WARM_UP_PASSES, pool: Any = None
) -> tuple[Callable[[], None], Tensor]:
    """Records a CUDA graph; a `Recorder`.

    Args:
        work: Function to record.
        passes: Number of warm-up passes; 0 if the function has run before.
        pool: Handle of `torch.cuda.graph_pool_handle`, to share memory among graphs that never run
            concurrently and whose results are copied before the next replay; None for private memory.
    """
    side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(passes):
            work()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = work()
    return graph.replay, result
