"""Speeds of experiments, as a follower has sent them."""

from __future__ import annotations

from pathlib import Path

from coma_gen.tracking.csv_tail import Row
from coma_gen.tracking.run_sync import open_run_sync
from coma_gen.tracking.store import Store
from coma_gen.tracking.throughput import best_speeds


def test_the_best_row_of_the_newest_run_of_each_name(store: Store) -> None:
    for key, name, speeds in (("a-1", "a", (1.0, 2.0)), ("a-2", "a", (10.0, 40.0, 20.0)), ("b-3", "b", ())):
        with open_run_sync(store, key=key, name=name, params={}) as sync:
            sync.sync_speed(
                [Row(step, {"tokens_per_cpu_second": value}) for step, value in enumerate(speeds)]
            )
    assert best_speeds(store.home, ["a", "b", "c"]) == {"a": 40.0}


def test_without_a_store_there_are_none_and_none_is_made(tmp_path: Path) -> None:
    assert best_speeds(tmp_path, ["a"]) == {}
    assert list(tmp_path.iterdir()) == []
