"""Parallel map over processes gives the results of a loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from subprocess_utils import wait_until

from coma_gen.core.cores import available_cores
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.parallel import AHEAD, _balance_items, imap_processes, map_prepared, map_processes


def square(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number


def test_results_are_in_order_and_do_not_depend_on_the_workers() -> None:
    items = list(range(80))
    expected = [square(item) for item in items]
    assert map_processes(square, items, workers=1, desc="one") == expected
    assert map_processes(square, items, workers=2, desc="two") == expected


def test_what_a_worker_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        map_processes(square, [*range(70), -1], workers=2, desc="fault")


@pytest.mark.parametrize("workers", [1, 2])
def test_only_so_much_is_begun_before_it_is_asked_for(workers: int) -> None:
    items = Counted(range(1000))
    results = imap_processes(square, items, workers=workers, desc="few")
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert items.taken <= workers * AHEAD * 16
    results.close()


class Counted(list[int]):
    """A list that knows how many of its items were taken."""

    taken = 0

    def __getitem__(self, index):
        part = super().__getitem__(index)
        self.taken += len(part) if isinstance(index, slice) else 1
        return part


def test_nothing_to_do_and_at_least_one_worker() -> None:
    assert map_processes(square, [], desc="none") == []
    assert available_cores() >= 1


@contextmanager
def tens() -> Iterator[int]:
    """What each process prepares."""
    yield 10


def times(ten: int, number: int) -> int:
    if number < 0:
        raise UserError(Fault(f"item {number}", "must not be negative"))
    if number == 999:
        os.kill(os.getpid(), signal.SIGKILL)
    return ten * number


def shared(numbers: list[int], processes: int) -> list[int]:
    return map_prepared(
        times, numbers, costs=numbers, prepare=tens, processes=processes, desc="times ten", unit="one"
    )


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_work_that_is_shared_gives_what_a_loop_gives(processes: int) -> None:
    assert shared([3, 1, 4, 1, 5], processes) == [30, 10, 40, 10, 50]
    assert shared([], processes) == [] and shared([7], processes) == [70]


def test_a_fault_in_another_process_is_raised_here() -> None:
    with pytest.raises(UserError, match="item -1: must not be negative"):
        shared([5, -1], 2)
    with pytest.raises(UserError, match="item -1: must not be negative"):
        shared([-1], 1)


def test_another_process_that_is_killed_is_told_of() -> None:
    with pytest.raises(UserError, match=r"times ten: .* beside this one was killed\. It may .*processes=1"):
        shared([1000, 999], 2)


def test_the_dearest_go_to_who_has_least_to_do() -> None:
    assert _balance_items([1, 9, 5, 5, 1], 2) in ([[1, 0], [2, 3, 4]], [[1, 0, 4], [2, 3]])
    assert _balance_items([], 0) == []


@pytest.mark.slow
def test_others_end_with_the_process_that_asked(tmp_path: Path) -> None:
    script = tmp_path / "asks.py"
    script.write_text(
        "import os, sys, time\n"
        "from contextlib import nullcontext\n"
        "from coma_gen.core.parallel import map_prepared\n"
        "def work(_nothing, number):\n"
        "    open(f'{sys.argv[1]}/{os.getpid()}', 'w').close()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    map_prepared(work, [1, 2], costs=[1, 1], prepare=nullcontext, processes=2, desc='', unit='')\n"
    )
    (tmp_path / "began").mkdir()
    asking = subprocess.Popen([sys.executable, str(script), str(tmp_path / "began")])
    wait_until(lambda: len(list((tmp_path / "began").iterdir())) == 2)
    others = {int(path.name) for path in (tmp_path / "began").iterdir()} - {asking.pid}
    asking.kill()
    asking.wait()
    wait_until(lambda: not any(psutil.pid_exists(other) for other in others))
