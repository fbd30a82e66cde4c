"""A stand-in for CUDA graphs on a CPU: records operations and replays them on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Records operations while it is entered; no Python of the work runs in a replay."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Does the operations again, and lays their results where they were."""
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A `Recorder` whose recording, as CUDA's, leaves a result of no meaning behind."""
    with Tape() as tape:
        result = work()
    result.fill_(torch.nan)
    return tape.replay, result
