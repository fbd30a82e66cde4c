"""Runs a function over untrusted inputs in subprocesses with memory and time limits.

A malicious file can exhaust memory, keep a parser busy forever, or crash one written in C. Only the worker
process dies then; the run continues with the reason in place of the result.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from coma_gen.core.cores import available_cores
from coma_gen.core.parallel import MIN_ITEMS_PER_WORKER

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """Placeholder for the result of a failed item.

    Attributes:
        reason: Reason of the failure.
    """

    reason: str


def map_isolated(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    memory: int,
    seconds: float,
    workers: int | None = None,
    desc: str,
    unit: str = "file",
) -> list[Result | WorkerFailure]:
    """Returns `[function(item) for item in items]`, with `WorkerFailure` for failed items.

    An item fails if the function raises, exceeds its time or memory, or kills its process. The results do not
    depend on the number of workers.

    Args:
        function: Module-level function.
        items: Picklable inputs.
        memory: Memory limit for one item in bytes, beyond that of its process at the start; not enforced on
            systems without /proc (macOS).
        seconds: Time limit for one item.
        workers: Number of processes, at least one; None for the number of cores.
        desc: Description of the progress bar, which is shown on terminals only.
        unit: Name of one item.
    """
    results: list[Result | WorkerFailure] = [WorkerFailure("not begun")] * len(items)
    waiting = iter(enumerate(items))
    busy: dict[Any, tuple[_Worker[Item, Result], int]] = {}

    def send_next(worker: _Worker[Item, Result] | None) -> None:
        """Sends the next item to a worker, or to a new one for None; stops the worker if none is left."""
        for index, item in waiting:
            worker = worker or _Worker(function, memory, seconds)
            try:
                worker.connection.send(item)
            except OSError:  # the worker was killed between two items
                worker.stop()
                worker = _Worker(function, memory, seconds)
                worker.connection.send(item)
            busy[worker.connection] = worker, index
            return
        if worker:
            worker.stop()

    with tqdm(total=len(items), desc=desc, unit=unit, disable=None) as bar:
        try:
            for _ in range(min(workers or available_cores(), max(1, len(items) // MIN_ITEMS_PER_WORKER))):
                send_next(None)
            while busy:
                for connection in wait(list(busy)):
                    worker, index = busy[connection]
                    if not worker.is_ready:
                        worker.await_start()
                        continue
                    results[index] = worker.result()
                    del busy[connection]
                    send_next(worker if worker.is_alive else None)
                    bar.update()
        finally:
            for worker, _ in busy.values():
                worker.stop()
    return results


class _Worker(Generic[Item, Result]):
    """A process that computes one item at a time."""

    def __init__(self, function: Callable[[Item], Result], memory: int, seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.is_alive = True
        self.is_ready = False
        self._seconds = seconds
        self._process = context.Process(target=_serve, args=(theirs, function, memory, seconds), daemon=True)
        # The worker inherits the blocked SIGINT, so Ctrl-C interrupts the parent alone.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self._process.start()
        except BaseException:
            self.stop()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()

    def await_start(self) -> None:
        """Receives the worker's first message, which it sends when it has started.

        Raises:
            RuntimeError: If the worker died before, which is not caused by an item.
        """
        try:
            self.is_ready = self.connection.recv()
        except (EOFError, OSError):
            raise RuntimeError(f"a worker process did not start: {self._describe_death()}") from None

    def result(self) -> Result | WorkerFailure:
        """Receives the result of the item that was sent."""
        try:
            answer: Result | WorkerFailure = self.connection.recv()
            return answer
        except (EOFError, OSError):
            return WorkerFailure(self._describe_death())

    def _describe_death(self) -> str:
        """Describes how the process died."""
        self._process.join()
        status = self._process.exitcode or 0
        self.stop()
        if status == -signal.SIGALRM:
            return f"more than {self._seconds:g} s of work"
        return f"work that ended by {signal.Signals(-status).name if status < 0 else f'status {status}'}"

    def stop(self) -> None:
        """Kills the process."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.connection.close()
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self._process.close()


def _serve(connection: Connection, function: Callable[[Item], Any], memory: int, seconds: float) -> None:
    """Main loop of a worker: answers items with results or `WorkerFailure` until the parent is gone."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # kills the process even inside C code
    _limit_memory(memory)
    try:
        connection.send(True)
        while True:
            item = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, seconds)
            answer = _call(function, item, memory)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)
    except (EOFError, OSError):
        return


def _call(function: Callable[[Item], Any], item: Item, memory: int) -> Any:
    try:
        return function(item)
    except MemoryError:
        return WorkerFailure(f"more than {memory // 2**20:,} MiB of memory")
    except Exception as error:
        return WorkerFailure(f"{type(error).__name__}: {error}")


def _limit_memory(memory: int) -> None:
    """Limits this process to `memory` bytes beyond its current size, on systems with /proc."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        limit = int(pages.read_text(encoding="ascii").split()[0]) * resource.getpagesize() + memory
        _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
        limit = limit if hard_limit == resource.RLIM_INFINITY else min(limit, hard_limit)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))
