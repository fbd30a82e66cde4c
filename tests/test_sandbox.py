"""A worker that crashes or hangs loses only its own item, with a reason."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from typing import Any

import pytest

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.sandbox import WorkerFailure, map_isolated

MEBIBYTE = 2**20
AMPLE: dict[str, Any] = {"memory": 1024 * MEBIBYTE, "seconds": 60.0}


def work(order: str) -> str:
    """Does what it is told, as a hostile file would have a parser do."""
    match order.split():
        case ["hang"]:
            time.sleep(60)
        case ["spin"]:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                pass
        case ["eat", size]:
            return str(len(bytearray(int(size) * MEBIBYTE)))
        case ["die", number]:
            os.kill(os.getpid(), int(number))
        case ["leave", status]:
            os._exit(int(status))
        case ["raise"]:
            raise KeyError("a key")
        case ["refuse"]:
            raise UserError(Fault("a.mid", "must be music"))
    return order


@pytest.mark.slow
def test_each_wild_item_is_lost_with_its_reason_and_no_other_is() -> None:
    orders = [
        "a",
        "hang",
        "b",
        "spin",
        "eat 400",
        "eat 8",
        "die 9",
        "die 11",
        "leave 3",
        "raise",
        "refuse",
        "z",
    ]
    assert map_isolated(work, orders, memory=300 * MEBIBYTE, seconds=0.8, desc="wild") == [
        "a",
        WorkerFailure("more than 0.8 s of work"),
        "b",
        WorkerFailure("more than 0.8 s of work"),
        WorkerFailure("more than 300 MiB of memory"),
        str(8 * MEBIBYTE),
        WorkerFailure("work that ended by SIGKILL"),
        WorkerFailure("work that ended by SIGSEGV"),
        WorkerFailure("work that ended by status 3"),
        WorkerFailure("KeyError: 'a key'"),
        WorkerFailure("UserError: a.mid: must be music"),
        "z",
    ]


def test_the_results_are_in_order_however_many_work() -> None:
    orders = [f"item {number}" if number % 40 else "leave 1" for number in range(96)]
    one, three = (map_isolated(work, orders, workers=count, **AMPLE, desc="order") for count in (1, 3))
    assert one == three
    assert [order for order, result in zip(orders, one, strict=True) if order != result] == ["leave 1"] * 3


def test_nothing_to_do_starts_nothing() -> None:
    assert map_isolated(work, [], **AMPLE, desc="none") == []


def test_a_worker_that_cannot_start_is_our_fault_not_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coma_gen.core.sandbox._serve", os.abort)
    with pytest.raises(RuntimeError, match="did not start"):
        map_isolated(work, ["a"], **AMPLE, desc="none")


def test_an_interrupt_is_not_held_up_by_what_hangs() -> None:
    began = time.monotonic()
    interrupt = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        map_isolated(work, ["hang"], **AMPLE, desc="none")
    interrupt.join()
    assert time.monotonic() - began < 30
    assert not multiprocessing.active_children()
