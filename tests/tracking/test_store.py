"""Tracking stores that are new, locked, unreachable, deleted or moved."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow_records import lock_store

from coma_gen.core.errors import UserError
from coma_gen.tracking.client import MlflowException
from coma_gen.tracking.run_sync import find_or_start_run
from coma_gen.tracking.store import Store, open_store
from coma_gen.tracking.uri import DATABASE

START_ONE = """
import sys
from pathlib import Path
from coma_gen.tracking.run_sync import find_or_start_run
from coma_gen.tracking.store import open_store
print(find_or_start_run(open_store(Path(sys.argv[1])), key="it's-1", name="workspace"))
"""


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.slow
def test_three_processes_that_use_a_new_store_at_once_start_one_run(
    tmp_path: Path, own_code: dict[str, str]
) -> None:
    words, pipe = [sys.executable, "-c", START_ONE, str(tmp_path)], subprocess.PIPE
    started = [
        subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=own_code)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert [err for _, err in outputs] == ["", "", ""]
    connection = sqlite3.connect(tmp_path / DATABASE)
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    connection.close()


def test_a_run_is_found_again_and_another_key_is_another_run(
    store: Store, count_runs: Callable[[], int]
) -> None:
    first = find_or_start_run(store, key="a-1", name="a")
    assert find_or_start_run(store, key="a-1", name="a") == first
    assert find_or_start_run(store, key="a-2", name="a") != first
    assert count_runs() == 2


@pytest.mark.slow
def test_a_lock_of_three_seconds_is_waited_for(home: Path, store: Store) -> None:
    seconds = 3.0
    thread = lock_store(home, seconds)
    started = time.monotonic()
    assert find_or_start_run(store, key="a-1", name="a")
    assert time.monotonic() - started > seconds / 2
    thread.join()


def test_what_passes_is_asked_again_and_a_refusal_is_not(store: Store) -> None:
    asked: list[int] = []

    def locked_twice() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise MlflowException("(sqlite3.OperationalError) database is locked")
        return "answer"

    assert store.ask(locked_twice) == "answer"
    asked.clear()

    def refused() -> None:
        asked.append(1)
        raise MlflowException("no such thing", error_code=INVALID_PARAMETER_VALUE)

    with pytest.raises(UserError, match="must accept what is sent"):
        store.ask(refused)
    assert len(asked) == 1


def test_a_server_that_is_away_is_named_within_the_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed_port}")
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        open_store(tmp_path, patience=1.0)
    assert time.monotonic() - started < 10
    assert f"http://127.0.0.1:{closed_port}" in str(caught.value)
    assert "unset MLFLOW_TRACKING_URI" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("this is text, and long enough to be read as a page" * 100)
    with pytest.raises(UserError, match="not a database"):
        open_store(tmp_path, patience=60.0)


def test_a_deleted_experiment_is_refused(store: Store) -> None:
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(UserError, match="mlflow experiments restore"):
        open_store(store.home)


def test_a_store_that_was_copied_is_not_written_to(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(store.home / DATABASE, other / DATABASE)
    with pytest.raises(UserError, match=r"must keep its artifacts in .*other/mlartifacts"):
        open_store(other)


def test_a_run_that_another_process_writes_to_is_waited_for(store: Store) -> None:
    with store.lock("run-1"), pytest.raises(UserError, match="a lock held by another process"):
        Store(store.address, store.home, store.client, store.experiment_id, patience=0.2).lock(
            "run-1"
        ).__enter__()
