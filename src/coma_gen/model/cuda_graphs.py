"""Work on a CUDA device as a graph: recorded once, then started by one call instead of one for each kernel.

A replay starts the recorded kernels, in their order, on the recorded addresses: the bits are those of the
work itself. Whatever changes between two replays has to change in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP_PASSES = 3
"""Before the recording, on a stream of their own, as torch asks for it."""

Recorder = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records some work; returns what does it again, and the tensor that each time gives its result in."""


def record_cuda_graph(
    work: Callable[[], Tensor], *, passes: int = WARM_UP_PASSES, pool: Any = None
) -> tuple[Callable[[], None], Tensor]:
    """The `Recorder` of CUDA.

    Args:
        work: what is recorded.
        passes: how often it is done first; 0 where it was done before.
        pool: of `torch.cuda.graph_pool_handle`: memory that graphs share of which no two run at a time, and
            whose results are copied before the next; None for memory of its own.
    """
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(passes):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = work()
    return graph.replay, result
