"""Bounded work over many files: processes, a progress bar, results in the order of the input."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
MIN_ITEMS_PER_WORKER = 32
"""Below this, starting a process costs more than it saves."""
AHEAD = 3
"""Chunks of items that are handed out for each worker before the first of their results is taken."""


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
    """`[function(item) for item in items]` over processes: `stream_bounded` as a list."""
    return list(stream_bounded(function, list(items), workers=workers, desc=desc, unit=unit))


def stream_bounded(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    desc: str,
    unit: str = "file",
) -> Iterator[Result]:
    """`map(function, items)` over processes; the results never depend on how many.

    However many items there are, only `AHEAD` chunks of them a worker are in the making or wait to be taken.

    Args:
        function: picklable, such as a module-level function; what it raises is raised here.
        items: picklable inputs.
        workers: processes; None takes what the machine has. Few items are done without any.
        desc: what the progress bar says (shown on terminals only).
        unit: what one item is.

    Yields:
        The results in the order of the items.
    """
    count = min(workers or available_workers(), max(1, len(items) // MIN_ITEMS_PER_WORKER))
    with tqdm(total=len(items), desc=desc, unit=unit, disable=None) as progress:
        for result in map(function, items) if count == 1 else _over_processes(function, items, count):
            yield result
            progress.update()


def _over_processes(
    function: Callable[[Item], Result], items: Sequence[Item], count: int
) -> Iterator[Result]:
    size = max(1, min(16, len(items) // (count * 4)))
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        begun: deque[Future[list[Result]]] = deque()
        for start in range(0, len(items), size):
            begun.append(pool.submit(_each, function, items[start : start + size]))
            if len(begun) == count * AHEAD:
                yield from begun.popleft().result()
        for future in begun:
            yield from future.result()


def _each(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [function(item) for item in chunk]
