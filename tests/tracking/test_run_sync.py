"""Training curves in the store: once, complete and correct, after any interruption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coma_gen.tracking.csv_tail import Row, read_rows
from coma_gen.tracking.run_sync import CURVES, KILLED, RUNNING, RunSync, find_or_start_run, open_run_sync
from coma_gen.tracking.store import Store

Points = Callable[[], list[tuple[str, int, float]]]
PARAMS = {"train": {"steps": 100}}


def expected(rows: list[Row]) -> list[tuple[str, int, float]]:
    return sorted(
        (CURVES[column], row.step, value)
        for row in rows
        for column, value in row.values.items()
        if column != "tokens"
    )


@pytest.fixture
def curve(tmp_path: Path, write_curve: Callable[[Path, range], Path]) -> list[Row]:
    return read_rows(write_curve(tmp_path / "curve.csv", range(10, 301, 10)))


def opened(store: Store) -> RunSync:
    with open_run_sync(store, key="workspace-1", name="workspace", params=PARAMS) as sync:
        return sync


def test_sent_twice_it_is_there_once(store: Store, curve: list[Row], points: Points) -> None:
    sync = opened(store)
    sync.sync_curve(curve)
    sync.sync_curve(curve)
    assert points() == expected(curve)
    again = opened(store)
    again.sync_curve(curve)
    assert again.sent == 0
    assert again.run_id == sync.run_id
    assert points() == expected(curve)


def test_a_growing_curve_is_sent_row_by_row(store: Store, curve: list[Row], points: Points) -> None:
    sync = opened(store)
    for length in (0, 1, 2, 2, 17, len(curve)):
        sync.sync_curve(curve[:length])
        assert points() == expected(curve[:length])


def test_a_curve_that_became_shorter_and_grew_again_is_there_once(
    store: Store, curve: list[Row], points: Points
) -> None:
    first = opened(store)
    first.sync_curve(curve[:20])
    second = opened(store)
    for length in (12, 15, len(curve)):
        second.sync_curve(curve[:length])
    assert second.run_id == first.run_id
    assert points() == expected(curve)


def test_an_interruption_between_batches_leaves_nothing_out(
    store: Store, curve: list[Row], points: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coma_gen.tracking.run_sync.METRICS_A_BATCH", 7)
    sync, sent = opened(store), []
    log = RunSync._log_points

    def interrupted(self: RunSync, some: object) -> None:
        if len(sent) == 3:
            raise KeyboardInterrupt
        sent.append(1)
        log(self, some)  # type: ignore[arg-type]

    monkeypatch.setattr(RunSync, "_log_points", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sync.sync_curve(curve)
    monkeypatch.setattr(RunSync, "_log_points", log)
    assert len(points()) == 21
    opened(store).sync_curve(curve)
    assert points() == expected(curve)


def test_a_curve_with_other_values_begins_a_new_run(
    store: Store, curve: list[Row], points: Points, count_runs: Callable[[], int]
) -> None:
    first = opened(store)
    first.sync_curve(curve)
    other = [Row(row.step, {**row.values, "train_loss": 1.5}) for row in curve]
    second = opened(store)
    second.sync_curve(other)
    assert second.run_id != first.run_id
    assert points() == expected(other)
    assert count_runs() == 1
    assert store.client.get_run(second.run_id).data.params == {"train.steps": "100"}
    assert store.client.get_run(first.run_id).info.lifecycle_stage == "deleted"


def test_other_params_under_the_same_key_begin_a_new_run(store: Store) -> None:
    first = opened(store)
    with open_run_sync(store, key="workspace-1", name="workspace", params={"train": {"steps": 7}}) as second:
        assert second.run_id != first.run_id
        assert second.run().data.params == {"train.steps": "7"}


def test_a_diverged_loss_is_sent_as_it_is(store: Store, points: Points) -> None:
    rows = [Row(10, {"train_loss": float("inf")}), Row(20, {"train_loss": float("nan")})]
    for _ in range(2):
        opened(store).sync_curve(rows)
    assert len(points()) == 2


def test_a_step_that_ran_twice_keeps_its_first_speed(store: Store, points: Points) -> None:
    speeds = [Row(10, {"tokens_per_second": 900.0}), Row(20, {"tokens_per_second": 910.0})]
    sync = opened(store)
    sync.sync_speed(speeds)
    again = [*speeds, Row(20, {"tokens_per_second": 870.0}), Row(30, {"tokens_per_second": 880.0})]
    sync.sync_speed(again)
    opened(store).sync_speed(again)
    assert [value for _, _, value in points()] == [900.0, 910.0, 880.0]
    assert {name for name, _, _ in points()} == {"system/tokens_per_second"}


def test_killed_and_running_again(store: Store) -> None:
    sync = opened(store)
    sync.mark(KILLED)
    assert sync.run().info.status == "KILLED"
    sync.mark(RUNNING)
    assert sync.run().info.status == "RUNNING"


def test_hundreds_of_params_and_tags_go_in_batches(store: Store) -> None:
    params = {"section": {f"key{index}": index for index in range(250)}}
    with open_run_sync(store, key="workspace-2", name="workspace", params=params) as sync:
        sync.set_tags({f"tag{index}": str(index) for index in range(250)})
        run = sync.run()
    assert len(run.data.params) == 250
    assert sum(name.startswith("tag") for name in run.data.tags) == 250


class TestGoneOnWithUnderAnotherName:
    """`dvc exp run` without a name invents one each time it is started."""

    def interrupted(self, store: Store, curve: list[Row]) -> str:
        with open_run_sync(store, key="noisy-bulb-1", name="noisy-bulb", params=PARAMS) as sync:
            sync.sync_curve(curve[:10])
            return sync.run_id

    def test_it_is_one_run_with_the_new_name(self, store: Store, curve: list[Row], points: Points) -> None:
        run_id = self.interrupted(store, curve)
        for _ in range(2):
            with open_run_sync(store, key="loved-lamp-1", name="loved-lamp", params=PARAMS) as sync:
                sync.sync_curve(curve)
                run = sync.run()
        assert (run.info.run_id, run.info.run_name) == (run_id, "loved-lamp")
        assert (run.data.tags["dvc.exp"], run.data.tags["digest.key"]) == ("loved-lamp", "loved-lamp-1")
        assert points() == expected(curve)

    @pytest.mark.parametrize("call", ["update_run", "log_batch"])
    def test_also_where_that_was_interrupted(
        self, call: str, store: Store, curve: list[Row], count_runs: Callable[[], int]
    ) -> None:
        run_id = self.interrupted(store, curve)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.client, call, interrupted_call(getattr(store.client, call)))
            with pytest.raises(KeyboardInterrupt):
                find_or_start_run(store, key="loved-lamp-1", name="loved-lamp")
        assert find_or_start_run(store, key="loved-lamp-1", name="loved-lamp") == run_id
        assert store.client.get_run(run_id).info.run_name == "loved-lamp"
        assert count_runs() == 1

    def test_what_is_complete_stays_itself(self, store: Store, curve: list[Row]) -> None:
        run_id = self.interrupted(store, curve)
        store.client.set_tag(run_id, "digest.artifacts", "whole")
        assert find_or_start_run(store, key="loved-lamp-1", name="loved-lamp") != run_id

    def test_what_somebody_writes_to_stays_itself(self, store: Store) -> None:
        with open_run_sync(store, key="noisy-bulb-1", name="noisy-bulb", params=PARAMS) as sync:
            assert find_or_start_run(store, key="loved-lamp-1", name="loved-lamp") != sync.run_id

    def test_what_another_checkout_began_stays_itself(
        self, store: Store, curve: list[Row], tmp_path: Path
    ) -> None:
        run_id = self.interrupted(store, curve)
        (tmp_path / "theirs" / ".mlflow").mkdir(parents=True)
        other = replace(store, home=tmp_path / "theirs")
        assert find_or_start_run(other, key="loved-lamp-1", name="loved-lamp") != run_id

    def test_what_has_other_settings_stays_itself(self, store: Store, curve: list[Row]) -> None:
        run_id = self.interrupted(store, curve)
        assert find_or_start_run(store, key="loved-lamp-2", name="loved-lamp") != run_id


def interrupted_call(call: Callable[..., object]) -> Callable[..., object]:
    """A call that is made, and whose maker is interrupted before it returns."""

    def made(*arguments: object, **options: object) -> None:
        call(*arguments, **options)
        raise KeyboardInterrupt

    return made
