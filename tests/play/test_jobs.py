"""Jobs run one at a time, in order; a disconnected client cancels its job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from coma_gen.core.errors import Fault, UserError
from coma_gen.play.jobs import Event, JobQueue, Report, StoppedError

PATIENCE = 30.0


async def without_pulses(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events if event]


async def until_idle(queue: JobQueue) -> None:
    async with asyncio.timeout(PATIENCE):
        while queue.busy:
            await asyncio.sleep(0.01)


def test_work_reports_and_ends_with_its_result() -> None:
    def work(report: Report) -> Event:
        report({"half": 1})
        return {"whole": 2}

    async def run() -> list[Event]:
        return await without_pulses(JobQueue(most=1, name="test").add(work).events())

    assert [event for event in asyncio.run(run()) if "waiting" not in event] == [{"half": 1}, {"whole": 2}]


def test_one_works_at_a_time_and_the_next_is_told_its_position() -> None:
    free, order = threading.Event(), list[str]()

    def first(_report: Report) -> Event:
        assert free.wait(PATIENCE)
        order.append("first")
        return {"done": 1}

    def second(_report: Report) -> Event:
        order.append("second")
        return {"done": 2}

    async def run() -> list[Event]:
        queue = JobQueue(most=2, name="test")
        one, two = queue.add(first), queue.add(second)
        received = []
        async for event in two.events():
            received += [event] if event else []
            if event.get("waiting") == 1:
                free.set()
        assert {"done": 1} in await without_pulses(one.events())
        return received

    received = asyncio.run(run())
    assert received[0] == {"waiting": 1} and received[-1] == {"done": 2}
    assert order == ["first", "second"]


def test_who_leaves_ends_the_work_under_way_and_what_has_not_begun_never_begins() -> None:
    ended, began = threading.Event(), list[int]()

    def endless(report: Report) -> Event:
        try:
            while True:
                report({"still": True})
        except StoppedError:
            ended.set()
            raise

    def later(_report: Report) -> Event:
        began.append(1)
        return {}

    async def run() -> None:
        queue = JobQueue(most=2, name="test")
        one, two = queue.add(endless).events(), queue.add(later).events()
        assert await anext(two) == {"waiting": 1}
        await two.aclose()
        assert await anext(one) == {"waiting": 0}
        await one.aclose()
        await until_idle(queue)

    asyncio.run(run())
    assert ended.is_set() and began == []


def test_too_many_are_refused() -> None:
    free = threading.Event()

    def slow(_report: Report) -> Event:
        assert free.wait(PATIENCE)
        return {}

    async def run() -> None:
        queue = JobQueue(most=1, name="test")
        queued = [queue.add(slow), queue.add(slow)]
        with pytest.raises(UserError, match="at most 1 requests may wait"):
            queue.add(slow)
        free.set()
        for job in queued:
            await without_pulses(job.events())
        await until_idle(queue)
        queue.add(slow).stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UserError(Fault("my.mid", "must be music", "noise")), "my.mid: must be music, got noise"),
        (MemoryError("no more"), "the piece: must find enough memory, got no more. Ask for fewer seconds"),
        (ValueError("secret"), "internal error; see the terminal of the server"),
    ],
)
def test_what_goes_wrong_is_said(error: Exception, told: str) -> None:
    def work(_report: Report) -> Event:
        raise error

    async def run() -> list[Event]:
        return await without_pulses(JobQueue(most=1, name="test").add(work).events())

    (said,) = (event for event in asyncio.run(run()) if "waiting" not in event)
    assert said["error"].startswith(told) and "secret" not in said["error"]
