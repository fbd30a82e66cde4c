"""Work on input that nobody vouches for: in processes with bounded memory and time.

A file may be made to fill the memory, to keep a parser busy for ever, or to crash one that is written in C.
Then a process ends that does nothing else, and the run goes on, with a word of why in place of that result.
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
    """What stands for a result that there is none of.

    Attributes:
        reason: what became of the work.
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
    """`[function(item) for item in items]`, with `WorkerFailure` where that raised, took too long or too
    much memory, or ended its process. How many workers there are changes nothing but the time.

    Args:
        function: a module-level function.
        items: picklable inputs.
        memory: bytes for one item, beyond what its process has at its start; not bounded where the system
            cannot (macOS).
        seconds: for one item.
        workers: processes; None takes what the machine has. There is always one.
        desc: what the progress bar says (shown on terminals only).
        unit: what one item is.
    """
    results: list[Result | WorkerFailure] = [WorkerFailure("not begun")] * len(items)
    waiting = iter(enumerate(items))
    busy: dict[Any, tuple[_Worker[Item, Result], int]] = {}

    def go_on(worker: _Worker[Item, Result] | None) -> None:
        """Gives a worker, or a new one, the next item; ends it where there is none."""
        for index, item in waiting:
            worker = worker or _Worker(function, memory, seconds)
            try:
                worker.connection.send(item)
            except OSError:  # it was ended by somebody else, between two items
                worker.end()
                worker = _Worker(function, memory, seconds)
                worker.connection.send(item)
            busy[worker.connection] = worker, index
            return
        if worker:
            worker.end()

    with tqdm(total=len(items), desc=desc, unit=unit, disable=None) as bar:
        try:
            for _ in range(min(workers or available_cores(), max(1, len(items) // MIN_ITEMS_PER_WORKER))):
                go_on(None)
            while busy:
                for connection in wait(list(busy)):
                    worker, index = busy[connection]
                    if not worker.is_ready:
                        worker.await_start()
                        continue
                    results[index] = worker.result()
                    del busy[connection]
                    go_on(worker if worker.is_alive else None)
                    bar.update()
        finally:
            for worker, _ in busy.values():
                worker.end()
    return results


class _Worker(Generic[Item, Result]):
    """A process that works on one item after another."""

    def __init__(self, function: Callable[[Item], Result], memory: int, seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.is_alive = True
        self.is_ready = False
        self._seconds = seconds
        self._process = context.Process(target=_serve, args=(theirs, function, memory, seconds), daemon=True)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # Ctrl-C is for the parent alone
        try:
            self._process.start()
        except BaseException:
            self.end()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()

    def await_start(self) -> None:
        """Takes the worker's first word, that it has begun.

        Raises:
            RuntimeError: it ended before; that is no fault of any item.
        """
        try:
            self.is_ready = self.connection.recv()
        except (EOFError, OSError):
            raise RuntimeError(f"a worker process did not start: {self._death()}") from None

    def result(self) -> Result | WorkerFailure:
        """Takes what became of the item that was sent."""
        try:
            answer: Result | WorkerFailure = self.connection.recv()
            return answer
        except (EOFError, OSError):
            return WorkerFailure(self._death())

    def _death(self) -> str:
        """How the process ended."""
        self._process.join()
        status = self._process.exitcode or 0
        self.end()
        if status == -signal.SIGALRM:
            return f"more than {self._seconds:g} s of work"
        return f"work that ended by {signal.Signals(-status).name if status < 0 else f'status {status}'}"

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.connection.close()
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self._process.close()


def _serve(
    connection: Connection, function: Callable[[Item], Any], memory: int, seconds: float
) -> None:  # in a process of its own
    """Answers each item with the function's result or `WorkerFailure`, until there is nobody who asks."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends it, also where no Python runs
    _bound_memory(memory)
    try:
        connection.send(True)
        while True:
            item = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, seconds)
            answer = _attempt(function, item, memory)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)
    except (EOFError, OSError):
        return


def _attempt(function: Callable[[Item], Any], item: Item, memory: int) -> Any:
    try:
        return function(item)
    except MemoryError:
        return WorkerFailure(f"more than {memory // 2**20:,} MiB of memory")
    except Exception as error:
        return WorkerFailure(f"{type(error).__name__}: {error}")


def _bound_memory(memory: int) -> None:
    """Lets this process take so many bytes more than it has, where the system says how many that is."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        most = int(pages.read_text(encoding="ascii").split()[0]) * resource.getpagesize() + memory
        _, allowed = resource.getrlimit(resource.RLIMIT_AS)
        most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(resource.RLIMIT_AS, (most, allowed))
