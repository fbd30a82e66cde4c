"""Bounded work over many files: processes, a progress bar, results in the order of the input."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
MIN_ITEMS_PER_WORKER = 32
"""Below this, starting a process costs more than it saves."""


def available_workers() -> int:
    """How many processes this machine can use, at least one."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1))


def map_bounded(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    desc: str,
    unit: str = "file",
) -> list[Result]:
    """`[function(item) for item in items]` over processes; the result never depends on how many.

    Args:
        function: a module-level function; what it raises is raised here.
        items: picklable inputs.
        workers: processes; None takes what the machine has. Few items are done without any.
        desc: what the progress bar says (shown on terminals only).
        unit: what one item is.
    """
    work: Sequence[Item] = list(items)
    count = min(workers or available_workers(), max(1, len(work) // MIN_ITEMS_PER_WORKER))
    if count == 1:
        return [function(item) for item in tqdm(work, desc=desc, unit=unit, disable=None)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        chunk = max(1, min(16, len(work) // (count * 4)))
        results = pool.map(function, work, chunksize=chunk)
        return list(tqdm(results, total=len(work), desc=desc, unit=unit, disable=None))
