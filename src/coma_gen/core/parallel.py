"""Ordered parallel maps over processes with a progress bar: for many small items, and for expensive items
that need a resource, such as a model, in each process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import TypeVar

from tqdm import tqdm

from coma_gen.core.cores import available_cores
from coma_gen.core.errors import Fault, UserError

Prepared = TypeVar("Prepared")
Item = TypeVar("Item")
Result = TypeVar("Result")
MIN_ITEMS_PER_WORKER = 32
"""With fewer items per worker, starting a process costs more than it saves."""
AHEAD = 3
"""Chunks per worker that may be submitted before the first result is consumed."""


def map_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    desc: str,
    unit: str = "file",
) -> list[Result]:
    """Returns the results of `imap_processes` as a list."""
    return list(imap_processes(function, list(items), workers=workers, desc=desc, unit=unit))


def imap_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    desc: str,
    unit: str = "file",
) -> Iterator[Result]:
    """Maps a function over items in worker processes; the results do not depend on their number.

    At most `AHEAD` chunks of items per worker are in progress or waiting to be consumed.

    Args:
        function: Picklable function; its exceptions are raised here.
        items: Picklable inputs.
        workers: Number of processes; None for the number of cores. Few items are computed in this process.
        desc: Description of the progress bar, which is shown on terminals only.
        unit: Name of one item.

    Yields:
        The results in the order of the items.
    """
    count = min(workers or available_cores(), max(1, len(items) // MIN_ITEMS_PER_WORKER))
    with tqdm(total=len(items), desc=desc, unit=unit, disable=None) as progress:
        for result in map(function, items) if count == 1 else _map_chunks(function, items, count):
            yield result
            progress.update()


def _map_chunks(function: Callable[[Item], Result], items: Sequence[Item], count: int) -> Iterator[Result]:
    size = max(1, min(16, len(items) // (count * 4)))
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        begun: deque[Future[list[Result]]] = deque()
        for start in range(0, len(items), size):
            begun.append(pool.submit(_map_chunk, function, items[start : start + size]))
            if len(begun) == count * AHEAD:
                yield from begun.popleft().result()
        for future in begun:
            yield from future.result()


def _map_chunk(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def map_prepared(
    function: Callable[[Prepared, Item], Result],
    items: Sequence[Item],
    *,
    costs: Sequence[float],
    prepare: Callable[[], AbstractContextManager[Prepared]],
    processes: int,
    desc: str,
    unit: str,
) -> list[Result]:
    """Returns `[function(prepared, item) for item in items]`, computed by this and other processes.

    Args:
        function: Picklable function whose result depends on its arguments only.
        items: Picklable inputs.
        costs: Cost of each item in any unit, for load balancing.
        prepare: Picklable function that returns a context manager; each process enters it once.
        processes: Number of processes, this one included.
        desc: Description of the progress bar, which counts the costs of this process's items.
        unit: Unit of the costs.

    Returns:
        The results in the order of the items.

    Raises:
        UserError: If another process was killed.
    """
    shares = _balance_items(costs, min(processes, len(items)))
    results: dict[int, Result] = {}
    with ProcessPoolExecutor(max(1, len(shares) - 1), multiprocessing.get_context("spawn")) as pool:
        # Workers inherit the blocked SIGINT, so Ctrl-C interrupts this process alone.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            others = [
                pool.submit(_work, function, [items[index] for index in share], prepare)
                for share in shares[1:]
            ]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        own = shares[0] if shares else []
        try:
            total = sum(costs[index] for index in own)
            with (
                prepare() as prepared,
                tqdm(total=total, desc=desc, unit=unit, unit_scale=True, disable=None) as bar,
            ):
                for index in own:
                    results[index] = function(prepared, items[index])
                    bar.update(costs[index])
            for share, future in zip(shares[1:], others, strict=True):
                results |= zip(share, future.result(), strict=True)
        except BrokenProcessPool:
            remedy = "it may have needed too much memory: -S runtime.processes=1 works in one"
            raise UserError(
                Fault(desc, "ended because a process beside this one was killed", remedy=remedy)
            ) from None
        except BaseException:
            for child in multiprocessing.active_children():
                child.kill()
            raise
    return [results[index] for index in range(len(items))]


def _balance_items(costs: Sequence[float], count: int) -> list[list[int]]:
    """Assigns item indices to processes greedily, the most expensive first, each to the least loaded."""
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += costs[index]
    return shares


def _work(
    function: Callable[[Prepared, Item], Result],
    items: Sequence[Item],
    prepare: Callable[[], AbstractContextManager[Prepared]],
) -> list[Result]:
    """Computes the items of another process; exits with the parent process."""
    if (parent := multiprocessing.parent_process()) is not None:
        Thread(target=_exit_with, args=(parent,), name="exit-with-parent", daemon=True).start()
    with prepare() as prepared:
        return [function(prepared, item) for item in items]


def _exit_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
