"""One piece of work at a time, in the order they came.

Whoever asked sees its position and what comes out, and can end it at any time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from coma_gen.core.errors import Fault, UserError, memory_fault

Event = dict[str, Any]
Report = Callable[[Event], None]
"""Tells whoever asked; raises StoppedError once nobody waits for the work any more."""
Work = Callable[[Report], Event]
"""Does the work, reports on the way, and returns what came out."""
PULSE = 0.25
"""Seconds after which a reader hears something, whatever the work does: so its absence is noticed."""


class StoppedError(Exception):
    """Nobody waits for this work any more."""


class Job:
    """One piece of work; its events can be read once."""

    def __init__(self, work: Work, queue: JobQueue) -> None:
        self._work, self._queue = work, queue
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ends the work where it is; one that has not begun does not begin."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set()

    async def events(self) -> AsyncGenerator[Event, None]:
        """{"waiting": n} as its position in the queue changes, {} as a pulse, what the work reports, and
        at the end its result or {"error": text}.
        """
        position = None
        try:
            while True:
                if (now := self._queue.queue_position(self)) != position and now is not None:
                    position = now
                    yield {"waiting": position}
                try:
                    event = await asyncio.wait_for(self._events.get(), PULSE)
                except TimeoutError:
                    yield {}
                    continue
                if event is None:
                    return
                yield event
        finally:
            self.stop()

    def run(self) -> None:
        """Does the work, in a thread of its own."""
        try:
            self._tell(self._work(self._report))
        except StoppedError:
            pass
        except UserError as error:
            self._tell({"error": str(error)})
        except Exception as error:
            fault = memory_fault(error, where="the piece", remedy="ask for fewer seconds or variants")
            if fault is None:
                logging.getLogger(__name__).exception("a piece could not be made")
            self._tell({"error": str(fault or "the server failed; what it wrote on its terminal says why")})
        finally:
            self._tell(None)

    def _report(self, event: Event) -> None:
        if self.stopped:
            raise StoppedError
        if event:
            self._tell(event)

    def _tell(self, event: Event | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class JobQueue:
    """Work that is done one after another.

    Args:
        most: jobs that may wait; more are refused.
        name: of its thread.
    """

    def __init__(self, *, most: int, name: str) -> None:
        self._most, self._jobs = most, list[Job]()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def add(self, work: Work) -> Job:
        """Adds work at the end, from within an event loop.

        Raises:
            UserError: too many wait already.
        """
        with self._lock:
            if sum(not job.stopped for job in self._jobs) > self._most:
                rule = f"at most {self._most} may wait for their turn"
                raise UserError(Fault("the server", rule, "one more", "try again in a minute"))
            job = Job(work, self)
            self._jobs.append(job)
        self._thread.submit(self._do, job)
        return job

    def queue_position(self, job: Job) -> int | None:
        """How many are before it; None once it is done."""
        with self._lock:
            before = [each for each in self._jobs if each is job or not each.stopped]
            return before.index(job) if job in before else None

    @property
    def busy(self) -> bool:
        """Whether any work is under way or waits."""
        with self._lock:
            return bool(self._jobs)

    def _do(self, job: Job) -> None:
        try:
            if not job.stopped:
                job.run()
        finally:
            with self._lock:
                self._jobs.remove(job)
