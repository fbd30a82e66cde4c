"""A queue of jobs that run one at a time, in order.

The client of a job reads its queue position and its events, and can stop it at any time.
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
"""Sends an event to the client; raises StoppedError if the job was stopped."""
Work = Callable[[Report], Event]
"""Does the work, reports progress, and returns the result."""
HEARTBEAT_SECONDS = 0.25
"""An empty event is sent after this time without events, so that a closed connection is detected."""


class StoppedError(Exception):
    """The job was stopped."""


class Job:
    """One job; its events can be read once."""

    def __init__(self, work: Work, queue: JobQueue) -> None:
        self._work, self._queue = work, queue
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Stops the job, or prevents it from starting."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether the job was stopped."""
        return self._stop.is_set()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yields {"waiting": n} when the queue position changes, {} as a heartbeat, the events that the work
        reports, and finally its result or {"error": text}.
        """
        position = None
        try:
            while True:
                if (now := self._queue.queue_position(self)) != position and now is not None:
                    position = now
                    yield {"waiting": position}
                try:
                    event = await asyncio.wait_for(self._events.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    yield {}
                    continue
                if event is None:
                    return
                yield event
        finally:
            self.stop()

    def run(self) -> None:
        """Does the work; called in the thread of the queue."""
        try:
            self._send(self._work(self._report))
        except StoppedError:
            pass
        except UserError as error:
            self._send({"error": str(error)})
        except Exception as error:
            fault = memory_fault(error, where="the piece", remedy="ask for fewer seconds or variants")
            if fault is None:
                logging.getLogger(__name__).exception("a piece could not be generated")
            self._send({"error": str(fault or "internal error; see the terminal of the server")})
        finally:
            self._send(None)

    def _report(self, event: Event) -> None:
        if self.stopped:
            raise StoppedError
        if event:
            self._send(event)

    def _send(self, event: Event | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class JobQueue:
    """Runs jobs one after another.

    Args:
        most: Maximum number of waiting jobs; more are refused.
        name: Name of the thread.
    """

    def __init__(self, *, most: int, name: str) -> None:
        self._most, self._jobs = most, list[Job]()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def add(self, work: Work) -> Job:
        """Adds a job; must be called within an event loop.

        Raises:
            UserError: If too many jobs are waiting.
        """
        with self._lock:
            if sum(not job.stopped for job in self._jobs) > self._most:
                rule = f"at most {self._most} requests may wait"
                raise UserError(Fault("the server", rule, "one more", "try again in a minute"))
            job = Job(work, self)
            self._jobs.append(job)
        self._thread.submit(self._do, job)
        return job

    def queue_position(self, job: Job) -> int | None:
        """The number of jobs before this one; None once it is done."""
        with self._lock:
            before = [each for each in self._jobs if each is job or not each.stopped]
            return before.index(job) if job in before else None

    @property
    def busy(self) -> bool:
        """Whether any job is running or waiting."""
        with self._lock:
            return bool(self._jobs)

    def _do(self, job: Job) -> None:
        try:
            if not job.stopped:
                job.run()
        finally:
            with self._lock:
                self._jobs.remove(job)
