"""Decoding steps as CUDA graphs, one for each cache slot that a new token can take.

Once every row fills the longest window, a step depends on the slot alone: the caches are written and
compacted in place, so after `capacity` appended tokens the same kernels run on the same addresses.

    visit of a slot   1st      2nd                3rd, 4th, ...
    step              eager    capture, replay    replay

A capture takes as long as several steps, so it waits until the slots have been visited once: while rows
finish one after another, a cache does not live long enough to gain from it. A cache for other rows has other
addresses and starts over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from coma_gen.core.errors import memory_fault
from coma_gen.model.cache import DecodeCache
from coma_gen.model.cuda_graphs import Recorder, record_cuda_graph

logger = logging.getLogger(__name__)


def make_shared_pool_recorder() -> Recorder:
    """Returns a recorder whose CUDA graphs share one memory pool for temporaries."""
    return partial(record_cuda_graph, passes=0, pool=torch.cuda.graph_pool_handle())


class RecordedSteps:
    """Runs decoding steps and replays those it has captured.

    Args:
        new_recorder: Returns the recorder for the steps of one cache.
    """

    def __init__(self, new_recorder: Callable[[], Recorder] = make_shared_pool_recorder) -> None:
        self._new_recorder, self._is_disabled = new_recorder, False
        self._blocks: object = None
        self._steps: dict[int, tuple[Callable[[], None], Tensor] | None] = {}

    @property
    def count(self) -> int:
        """The number of captured steps of the newest cache."""
        return sum(step is not None for step in self._steps.values())

    def __call__(self, state: DecodeCache, work: Callable[[], Tensor]) -> Tensor:
        """Returns the logits of `work`, replayed where it was captured.

        Args:
            state: The cache that the step updates.
            work: The step at the cache's current slot; running it twice must have the same effect as once.
        """
        if state.blocks is not self._blocks:
            self._blocks, self._steps, self._record = state.blocks, {}, self._new_recorder()
        if self._is_disabled or state.num_appended not in self._steps:
            self._steps[state.num_appended] = None
            return work()
        try:
            step = self._steps[state.num_appended]
            if step is None:
                step = self._steps[state.num_appended] = self._record(work)
            replay, logits = step
            replay()
            return logits.clone()
        except Exception as error:  # capture failed; the eager step raises errors of our own
            if memory_fault(error):
                raise
            _warn(f"{type(error).__name__}: {error}".splitlines()[0])
            self._is_disabled, self._steps = True, {}
            return work()


@cache
def _warn(reason: str) -> None:
    """Warns once per process that steps cannot be captured."""
    logger.warning("decoding: steps cannot be recorded as CUDA graphs; they run in eager mode. %s", reason)
