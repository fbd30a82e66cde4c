"""The MLflow store: opened under a file lock, with retries.

Concurrent processes crash when each creates the tables of a new SQLite store, so a file lock serializes that.
Calls to a store that is locked, busy or unreachable are retried with exponential backoff until a timeout, so
all calls must be idempotent.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from coma_gen.core.errors import Fault, UserError
from coma_gen.tracking.client import MlflowClient, MlflowException, SQLAlchemyError
from coma_gen.tracking.uri import ARTIFACTS, DATABASE, EXPERIMENT, LOCKS, Address, check_address
from coma_gen.tracking.view import experiment_tags

PATIENCE = 90.0
"""Seconds to retry a locked or unreachable store: longer than a lock of one minute by another process."""
FIRST_PAUSE, MAX_PAUSE = 0.1, 5.0
SHOWN_CHARACTERS = 200

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        address: Location of the store.
        home: The permanent checkout, which contains the lock files.
        client: MLflow's client.
        experiment_id: Id of the experiment that contains all runs.
        patience: Seconds to retry a store that does not answer.
    """

    address: Address
    home: Path
    client: MlflowClient
    experiment_id: str
    patience: float

    def ask(self, call: Callable[[], Answer]) -> Answer:
        """Calls a function, with retries while the store is locked or unreachable, and returns its result.

        Raises:
            UserError: If the store refuses the request, or the retries time out.
        """
        return _ask(call, address=self.address, patience=self.patience)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Acquires a lock by name, between the processes of this machine.

        Raises:
            UserError: If another process holds it for longer than `patience`.
        """
        with _locked(self.home, name, patience=self.patience):
            yield

    @property
    def checkout_id(self) -> str:
        """Digest of machine and checkout, which identifies this checkout on a shared server."""
        return hashlib.sha256(f"{platform.node()}:{self.home.resolve()}".encode()).hexdigest()

    def is_free(self, name: str) -> bool:
        """Whether no process of this machine holds the lock `name`."""
        lock = FileLock(self.home / LOCKS / f"{name}.lock")
        try:
            with lock.acquire(timeout=0):
                return True
        except Timeout:
            return False


def open_store(home: Path, *, patience: float = PATIENCE) -> Store:
    """Opens the store of a checkout, and creates it if there is none.

    Args:
        home: The permanent checkout.
        patience: Seconds to retry a store that does not answer.

    Raises:
        UserError: If the store cannot be reached or used.
    """
    address = check_address(home)
    with _locked(home, "store", patience=patience):
        client, experiment_id = _ask(lambda: _connect(address), address=address, patience=patience)
    return Store(address=address, home=home, client=client, experiment_id=experiment_id, patience=patience)


def _connect(address: Address) -> tuple[MlflowClient, str]:
    registry = os.environ.get("MLFLOW_REGISTRY_URI") or address.uri
    client = MlflowClient(tracking_uri=address.uri, registry_uri=registry)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        location = None if address.artifacts is None else str(address.artifacts)
        tags = experiment_tags()
        return client, client.create_experiment(EXPERIMENT, artifact_location=location, tags=tags)
    if not experiment.experiment_id:
        where, got = f"MLflow at {address.shown}", "an answer that names no experiment"
        raise UserError(Fault(where, "must be a tracking server", got, "see MLFLOW_TRACKING_URI"))
    where = f"experiment '{EXPERIMENT}' at {address.shown}"
    if experiment.lifecycle_stage != "active":
        remedy = f"`mlflow experiments restore -x {experiment.experiment_id}` brings it back"
        raise UserError(Fault(where, "must be active", "a deleted one", remedy))
    if address.artifacts is not None and Path(experiment.artifact_location) != address.artifacts:
        rule = f"must keep its artifacts in {address.artifacts}"
        remedy = f"the store was moved: move it back, or rename {DATABASE} and {ARTIFACTS} to begin a new one"
        raise UserError(Fault(where, rule, experiment.artifact_location, remedy))
    for name, text in experiment_tags().items():
        if name not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, name, text)
    return client, str(experiment.experiment_id)


def _ask(call: Callable[[], Answer], *, address: Address, patience: float) -> Answer:
    deadline, pause = time.monotonic() + patience, FIRST_PAUSE
    while True:
        try:
            return call()
        except (MlflowException, SQLAlchemyError, ConnectionError, TimeoutError) as error:
            is_transient = _is_transient(error)
            if not is_transient or time.monotonic() + pause > deadline:
                raise UserError(_explain(error, address, patience if is_transient else None)) from error
        time.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE)


def _is_transient(error: Exception) -> bool:
    """Whether a retry may succeed: yes for locks and unreachable servers, no for refused requests."""
    if "sqlite3." in str(error):
        return "locked" in str(error) or "busy" in str(error)
    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        return status >= 500 or status == 429
    return True


def _explain(error: Exception, address: Address, patience: float | None) -> Fault:
    got = str(error).replace(address.uri, address.shown).strip().splitlines()[0][:SHOWN_CHARACTERS]
    if patience is None:
        return Fault(f"MLflow at {address.shown}", "must accept what is sent", got)
    if address.artifacts is None:
        remedy = "start the server, or unset MLFLOW_TRACKING_URI to keep the runs in this folder"
    else:
        remedy = f"end whatever holds {DATABASE}"
    remedy += "; then run `dvc repro` again: only the tracking is missing, the results are there"
    return Fault(f"MLflow at {address.shown}", f"must answer within {patience:g} s", got, remedy)


@contextmanager
def _locked(home: Path, name: str, *, patience: float) -> Iterator[None]:
    folder = home / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    try:
        with FileLock(path, timeout=patience):
            yield
    except Timeout:
        rule = f"must be free within {patience:g} s"
        raise UserError(
            Fault(str(path), rule, "a lock held by another process", "end that one first")
        ) from None


def lock_name(key: str) -> str:
    """Returns the name of the lock of a run, which only one process may write to."""
    return f"run-{hashlib.sha256(key.encode('utf-8')).hexdigest()[:16]}"
