"""Work over processes, with a progress bar and results in the order of the input: bounded work over many
files, and heavy work that needs something prepared, such as a model, in each process.
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
"""Below this, starting a process costs more than it saves."""
AHEAD = 3
"""Chunks of items that are handed out for each worker before the first of their results is taken."""


def map_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    desc: str,
    unit: str = "file",
) -> list[Result]:
    """`[function(item) for item in items]` over processes: `imap_processes` as a list."""
    return list(imap_processes(function, list(items), workers=workers, desc=desc, unit=unit))


def imap_processes(
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
    count = min(workers or available_cores(), max(1, len(items) // MIN_ITEMS_PER_WORKER))
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
    """`[function(prepared, item) for item in items]`, by this process and others beside it.

    Args:
        function: picklable; its result must depend on nothing but what it is given.
        items: picklable.
        costs: of each item, in any unit: who works on what follows from them.
        prepare: picklable; each process calls it once, and works within what it returns.
        processes: how many, this one included.
        desc: what the progress bar says; it counts the costs of this process's own items.
        unit: of the costs.

    Returns:
        The results in the order of the items.

    Raises:
        UserError: another process was killed.
    """
    shares = _shares(costs, min(processes, len(items)))
    results: dict[int, Result] = {}
    with ProcessPoolExecutor(max(1, len(shares) - 1), multiprocessing.get_context("spawn")) as pool:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for this process alone
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


def _shares(costs: Sequence[float], count: int) -> list[list[int]]:
    """The indices of the items of each process: the dearest first, each to who has least to do so far."""
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
    """Another process's share; ends with the process that asked for it."""
    if (parent := multiprocessing.parent_process()) is not None:
        Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()
    with prepare() as prepared:
        return [function(prepared, item) for item in items]


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
