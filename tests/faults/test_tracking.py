"""Tracking stores that are locked, refuse, hang, lose responses, or whose writer is killed: training
continues, and in the end every metric is recorded once.
"""
# ruff: noqa: F811 - the fixtures are those of tests/tracking

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow_records import lock_store

from coma_gen.core.errors import UserError
from coma_gen.tracking.client import MlflowException
from coma_gen.tracking.csv_tail import Row, read_rows
from coma_gen.tracking.launch import start_follower
from coma_gen.tracking.run_record import Experiment, sync_complete
from coma_gen.tracking.run_sync import CURVES, open_run_sync
from coma_gen.tracking.store import Store, open_store
from coma_gen.tracking.uri import DATABASE
from faults.broken_disk import is_killed
from faults.broken_server import Answer, BrokenServer, head, resets, sends, stalls
from faults.budgets import BOTH_FORMS, SHORT, Form
from tracking.conftest import (  # noqa: F401 - pytest finds them here
    METRICS,
    OF_MLFLOW,
    _own_address,
    home,
    make_experiment,
    points,
    store,
    template,
    write_curve,
)
from training import trainer

pytestmark = [pytest.mark.filterwarnings(warning) for warning in OF_MLFLOW]
Tally = Callable[[str, str, int], None]
Points = Callable[[], list[tuple[str, int, float]]]
PARAMS = Path(__file__).parents[2] / "params.yaml"
ONCE = "training goes on; in the end each metric is there, once"


class Faulty:
    """MLflow's client, which does something else at some of its calls."""

    def __init__(self, client: Any, act: Callable[[int, Callable[[], Any]], Any]) -> None:
        self._client, self._act, self.calls = client, act, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            return self._act(self.calls, lambda: real(*args, **options))

        return call


Act = Callable[[int, Callable[[], Any]], Any]


def fails(number: int) -> Act:
    def act(call: int, real: Callable[[], Any]) -> Any:
        if call == number:
            raise MlflowException("(sqlite3.OperationalError) database is locked")
        return real()

    return act


def loses_the_answer(number: int) -> Act:
    def act(call: int, real: Callable[[], Any]) -> Any:
        answer = real()
        if call == number:
            raise ConnectionError("reset by peer")
        return answer

    return act


def stays_away(number: int) -> Act:
    def act(call: int, real: Callable[[], Any]) -> Any:
        if call >= number:
            raise TimeoutError("timed out")
        return real()

    return act


def dies_before(number: int) -> Act:
    def act(call: int, real: Callable[[], Any]) -> Any:
        if call == number:
            os._exit(137)
        return real()

    return act


def dies_after(number: int) -> Act:
    def act(call: int, real: Callable[[], Any]) -> Any:
        answer = real()
        if call == number:
            os._exit(137)
        return answer

    return act


WAYS: dict[str, Callable[[int], Act]] = {
    "a store that fails at a call": fails,
    "a store that acts and loses its answer": loses_the_answer,
    "a store that goes away at a call": stays_away,
    "a writer killed before a call": dies_before,
    "a writer killed after a call": dies_after,
}


def expected(experiment: Experiment) -> set[tuple[str, int, float]]:
    """Every point that the files hold."""
    rows = read_rows(experiment.curve)
    return curve(rows) | {(name, 0, value) for name, value in METRICS["headline"].items()}


def curve(rows: list[Row]) -> set[tuple[str, int, float]]:
    """Every point of a curve."""
    return {
        (CURVES[name], row.step, value)
        for row in rows
        for name, value in row.values.items()
        if name != "tokens"
    }


def sync_all(store: Store, experiment: Experiment) -> None:
    """What follower and track stage do, one after the other."""
    params = experiment.params
    with open_run_sync(store, key=experiment.key, name=experiment.name, params=params) as sync:
        sync.mark("RUNNING")
        sync.sync_curve(read_rows(experiment.curve)[:5])
    sync_complete(store, experiment)


@contextmanager
def emptied(store: Store) -> Iterator[None]:
    """Puts the database back as it was, after the block."""
    before = (store.home / DATABASE).read_bytes()
    yield
    disconnect(store)
    for path in store.home.glob(f"{DATABASE}*"):
        path.unlink()
    (store.home / DATABASE).write_bytes(before)


@pytest.mark.parametrize("form", BOTH_FORMS)
@pytest.mark.parametrize("is_there", [False, True], ids=["fresh", "in place of another run"])
def test_at_each_call(
    form: Form,
    is_there: bool,
    store: Store,
    make_experiment: Callable[..., Experiment],
    points: Points,
    tally: Tally,
) -> None:
    experiment = make_experiment()
    if is_there:
        sync_complete(store, replace(experiment, params={"train": {"steps": 7}}))
    counted = Faulty(store.client, lambda _, real: real())
    with emptied(store):
        sync_all(replace(store, client=counted), experiment)
        assert set(points()) == expected(experiment)
    tried = dict.fromkeys(WAYS, 0)
    for number in range(1, counted.calls + 1):
        for column, (name, way) in enumerate(WAYS.items()):
            if form == SHORT and number % (3 * len(WAYS)) != 3 * column + is_there:
                continue
            with emptied(store):
                once(store, experiment, way, number, points)
            tried[name] += 1
    for name, times in tried.items():
        tally(name, ONCE, times)


def once(
    store: Store, experiment: Experiment, way: Callable[[int], Act], number: int, points: Points
) -> None:
    """Sends an experiment through a client that is not well, and then through one that is."""
    faulty = replace(store, client=Faulty(store.client, way(number)), patience=0.5)
    if way in (dies_before, dies_after):
        disconnect(store)
        assert is_killed(lambda: sync_all(faulty, experiment), at=0)
    elif way is stays_away:
        with pytest.raises(UserError, match="must answer within") as caught:
            sync_all(faulty, experiment)
        assert len(str(caught.value).splitlines()) == 1
    else:
        sync_all(faulty, experiment)
    sync_complete(store, experiment)
    found = points()
    assert len(found) == len(set(found)) and set(found) == expected(experiment)
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.info.status == "FINISHED"
    assert set(run.data.params) == {"train.learning_rate", "train.steps", "train.clip_norm", "train.augment",
                                    "model.window_sizes", "model.attention_position"}  # fmt: skip
    assert len(run.inputs.dataset_inputs) == 1


def disconnect(store: Store) -> None:
    """Lets the connections to the database go."""
    store.client._tracking_client.store.engine.dispose()


def page(status: str, body: bytes = b"<html>Sorry</html>", kind: str = "text/html") -> Answer:
    return sends(head(len(body), status=status, Content_Type=kind), body)


SERVERS: dict[str, Answer] = {
    "that is busy": page("503 Service Unavailable"),
    "that is broken": page("500 Internal Server Error"),
    "that wants a password": page("401 Unauthorized"),
    "that forbids": page("403 Forbidden"),
    "that is another one": page("404 Not Found"),
    "with a page for everything": page("200 OK"),
    "with JSON of something else": page("200 OK", b'{"a": [1]}', "application/json"),
    "with half an answer": sends(head(1000, Content_Type="application/json"), b'{"experiment": {'),
    "with nothing": sends(),
    "with noise": sends(os.urandom(64).replace(b"\n", b"")),
    "that resets": resets(),
    "that resets midway": resets(head(1000), b"{"),
    "that hangs": stalls(),
    "that hangs midway": stalls(head(1000), b"{"),
    "that redirects to itself": sends(head(0, status="302 Found", Location="/")),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with BrokenServer([SERVERS[name]]) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        began = time.monotonic()
        with pytest.raises(UserError, match=r"^MLflow at http://127\.0\.0\.1:\d+: must ") as caught:
            open_store(tmp_path, patience=0.3)
        assert time.monotonic() - began < 30
        assert len(str(caught.value).splitlines()) == 1
    tally("a tracking server that refuses, hangs or talks nonsense", "one clear line, in time", 1)


class TestTraining:
    """Beside a follower whose store is not well."""

    def trained(self, run: Path, home: Path) -> str:
        """Trains with a follower, waits for the follower's end, and gives the training's digest."""
        files = {"curve": run / "curve.csv", "speed": run / "speed.csv", "log": run / "follower.log"}
        run.mkdir()
        follower = start_follower(**files, home=home, key="workspace-1", name="workspace", params=PARAMS)
        digest = trainer.digest(trainer.train(run))
        time.sleep(1.0)  # the follower listens by then
        follower.finish()
        assert follower.pid is not None
        os.waitpid(follower.pid, 0)
        assert "Traceback" not in files["log"].read_text()
        return digest

    @pytest.fixture
    def whole(self, tmp_path: Path) -> str:
        return trainer.digest(trainer.train(tmp_path / "whole"))

    @pytest.mark.parametrize("form", BOTH_FORMS)
    def test_a_lock(
        self, form: Form, whole: str, home: Path, store: Store, points: Points, tmp_path: Path, tally: Tally
    ) -> None:
        """Of a minute, or of some seconds."""
        thread = lock_store(home, 4.0 if form == SHORT else 60.0)
        assert self.trained(tmp_path / "run", home) == whole
        rows = read_rows(tmp_path / "run" / "curve.csv")
        patient = open_store(home)
        with open_run_sync(patient, key="workspace-1", name="workspace", params={}) as sync:
            sync.sync_curve(rows)
        thread.join()
        found = [point for point in points() if point[0] in CURVES.values()]
        assert found == sorted(curve(rows))
        tally(f"a store that is locked for {4 if form == SHORT else 60} s", ONCE, 1)

    @pytest.mark.faults
    @pytest.mark.parametrize("name", ["that is busy", "that forbids", "that hangs", "that resets"])
    def test_a_server_that_is_not_well(
        self, name: str, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        """What is missing then is sent by the track stage, as above."""
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        with BrokenServer([SERVERS[name]]) as server:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
            assert self.trained(tmp_path / "run", tmp_path) == whole
            assert server.asked
        log = (tmp_path / "run" / "follower.log").read_text()
        assert all(line.startswith("MLflow at http://127.0.0.1:") for line in log.splitlines()) and log
        fault = "a tracking server that refuses or hangs while training runs"
        tally(fault, "the same bits; the follower ends by itself", 1)
