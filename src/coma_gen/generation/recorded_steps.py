"""Decoding steps as CUDA graphs, one for each slot of the cache that a new token can take.

Once every row fills the longest window, a step depends on the slot alone: each cache is written in place and
compacted in place, so that after `room` tokens the same kernels run on the same addresses.

    visit of a slot   1st      2nd                3rd, 4th, ...
    step              plain    recorded, replay   replay

A recording takes the time of several steps, so that it waits until a state has gone around once: while rows
end one after another, each state is too short-lived to gain by it. A state of other rows lies elsewhere in
memory and begins anew.
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


def sharing_memory() -> Recorder:
    """A recorder of CUDA graphs that share what they use for a moment."""
    return partial(record_cuda_graph, passes=0, pool=torch.cuda.graph_pool_handle())


class RecordedSteps:
    """Takes the steps of a decoder.

    Args:
        new_recorder: gives what records the steps of one state.
    """

    def __init__(self, new_recorder: Callable[[], Recorder] = sharing_memory) -> None:
        self._new_recorder, self._cannot_record = new_recorder, False
        self._blocks: object = None
        self._steps: dict[int, tuple[Callable[[], None], Tensor] | None] = {}

    @property
    def count(self) -> int:
        """Steps that are recorded, of the newest state."""
        return sum(step is not None for step in self._steps.values())

    def __call__(self, state: DecodeCache, work: Callable[[], Tensor]) -> Tensor:
        """The logits that `work` gives, by a replay where there is one.

        Args:
            state: what the step moves on.
            work: the step at the state's slot; done twice it leaves the same.
        """
        if state.blocks is not self._blocks:
            self._blocks, self._steps, self._record = state.blocks, {}, self._new_recorder()
        if self._cannot_record or state.fresh not in self._steps:
            self._steps[state.fresh] = None
            return work()
        try:
            step = self._steps[state.fresh]
            if step is None:
                step = self._steps[state.fresh] = self._record(work)
            replay, logits = step
            replay()
            return logits.clone()
        except Exception as error:  # whatever cannot be recorded; the plain path raises what is ours
            if memory_fault(error):
                raise
            _warn(f"{type(error).__name__}: {error}".splitlines()[0])
            self._cannot_record, self._steps = True, {}
            return work()


@cache
def _warn(reason: str) -> None:
    """Says once in a process why steps cannot be recorded."""
    logger.warning("decoding: steps cannot be recorded as CUDA graphs, going on without. %s", reason)
