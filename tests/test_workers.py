"""Work over processes gives what a loop gives."""

from __future__ import annotations

import pytest

from coma_gen.cores import available_cores
from coma_gen.workers import AHEAD, map_bounded, stream_bounded


def square(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number


def test_results_are_in_order_and_do_not_depend_on_the_workers() -> None:
    items = list(range(80))
    expected = [square(item) for item in items]
    assert map_bounded(square, items, workers=1, desc="one") == expected
    assert map_bounded(square, items, workers=2, desc="two") == expected


def test_what_a_worker_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        map_bounded(square, [*range(70), -1], workers=2, desc="fault")


@pytest.mark.parametrize("workers", [1, 2])
def test_only_so_much_is_begun_before_it_is_asked_for(workers: int) -> None:
    items = Counted(range(1000))
    results = stream_bounded(square, items, workers=workers, desc="few")
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert items.taken <= workers * AHEAD * 16
    results.close()


class Counted(list[int]):
    """A list that knows how many of its items were taken."""

    taken = 0

    def __getitem__(self, place):
        part = super().__getitem__(place)
        self.taken += len(part) if isinstance(place, slice) else 1
        return part


def test_nothing_to_do_and_at_least_one_worker() -> None:
    assert map_bounded(square, [], desc="none") == []
    assert available_cores() >= 1
