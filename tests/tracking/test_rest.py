"""Two runs seen through MLflow's own server, as its page sees them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coma_gen.tracking.flatten import flat_params
from coma_gen.tracking.run_record import Experiment, sync_complete
from coma_gen.tracking.run_sync import find_or_start_run
from coma_gen.tracking.store import Store, open_store
from coma_gen.tracking.uri import ui_command


@pytest.fixture
def server(store: Store) -> Iterator[str]:
    """The command that the README gives, on a free port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    words = [sys.executable, "-m", *ui_command(store.home, port=port).split(), "--workers", "1"]
    process = subprocess.Popen(
        words,
        cwd=store.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                break
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def asked(address: str, path: str, content: dict[str, Any] | None = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(
        f"{address}{path}", data=data, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_two_runs_can_be_compared_over_rest(
    store: Store,
    make_experiment: Callable[..., Experiment],
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    metrics = [{"headline": {"nats": 4.25 - 1e-7 * index}} for index in range(2)]
    params = [{"train": {"learning_rate": rate, "clip_norm": None}} for rate in (1e-3, 1e-4)]
    for index in range(2):
        sync_complete(store, make_experiment(f"exp{index}-1", metrics=metrics[index], params=params[index]))
    experiment = asked(server, "/api/2.0/mlflow/experiments/get-by-name?experiment_name=coma-gen")[
        "experiment"
    ]
    query = {"experiment_ids": [experiment["experiment_id"]], "order_by": ["attributes.run_name ASC"]}
    runs = asked(server, "/api/2.0/mlflow/runs/search", query)["runs"]
    assert [run["info"]["run_name"] for run in runs] == ["exp0", "exp1"]
    for run, measures, settings in zip(runs, metrics, params, strict=True):
        assert run["info"]["status"] == "FINISHED"
        shown = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
        assert shown["nats"] == measures["headline"]["nats"]
        assert {param["key"]: param["value"] for param in run["data"]["params"]} == flat_params(settings)
        history = asked(
            server,
            f"/api/2.0/mlflow/metrics/get-history?run_id={run['info']['run_id']}&metric_key=loss%2Ftrain",
        )
        assert len(history["metrics"]) == 10
        query = urllib.parse.urlencode({"run_uuid": run["info"]["run_id"], "path": "samples/one.mid"})
        with urllib.request.urlopen(f"{server}/get-artifact?{query}", timeout=20) as answer:
            assert answer.read() == b"MThd"
    over_rest_the_run_is_the_same(server, make_experiment, metrics[0], params[0], monkeypatch, tmp_path)


def over_rest_the_run_is_the_same(
    server: str,
    make_experiment: Callable[..., Experiment],
    metrics: dict[str, Any],
    params: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A server named by MLFLOW_TRACKING_URI has the run already, and takes a new one."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    (tmp_path / "elsewhere").mkdir()
    remote = open_store(tmp_path / "elsewhere", patience=20)
    known = sync_complete(remote, make_experiment("exp0-1", metrics=metrics, params=params))
    assert known.sent == 0
    new = sync_complete(remote, make_experiment("exp2-1", metrics=metrics, params=params))
    assert new.sent == 10 * 3 + 2 + 1
    assert find_or_start_run(remote, key="exp2-1", name="exp2") == new.run_id
