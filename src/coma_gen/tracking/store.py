"""The store of runs: opened under a lock, asked with patience.

Three processes that use a new SQLite store at once crash while each creates its tables, so a file lock lets
one do it. A store that is locked, busy or away is asked again, at growing intervals, until the patience is
spent; whatever is asked must therefore be harmless when asked twice.
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
"""Seconds that a locked or unreachable store is asked again: more than a minute of others."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SHOWN_CHARACTERS = 200

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        address: where it is.
        home: the checkout that lasts; the locks are there.
        client: MLflow's own client.
        experiment_id: of the experiment that all runs belong to.
        patience: seconds to go on asking a store that does not answer.
    """

    address: Address
    home: Path
    client: MlflowClient
    experiment_id: str
    patience: float

    def ask(self, call: Callable[[], Answer]) -> Answer:
        """What `call` returns, asked again while the store is locked or away.

        Raises:
            UserError: when the store refuses, or the patience is spent.
        """
        return _ask(call, address=self.address, patience=self.patience)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Lets one process of this machine at a time do what `name` names.

        Raises:
            UserError: when another one holds it for longer than the patience.
        """
        with _locked(self.home, name, patience=self.patience):
            yield

    @property
    def checkout_id(self) -> str:
        """A digest of the machine and the checkout, which others that use the same server do not have."""
        return hashlib.sha256(f"{platform.node()}:{self.home.resolve()}".encode()).hexdigest()

    def is_free(self, name: str) -> bool:
        """Whether no process of this machine does what `name` names."""
        lock = FileLock(self.home / LOCKS / f"{name}.lock")
        try:
            with lock.acquire(timeout=0):
                return True
        except Timeout:
            return False


def open_store(home: Path, *, patience: float = PATIENCE) -> Store:
    """Opens the store of a checkout, and makes it when there is none.

    Args:
        home: the checkout that lasts.
        patience: seconds to go on asking a store that does not answer.

    Raises:
        UserError: when the store cannot be reached or used.
    """
    address = check_address(home)
    with _locked(home, "store", patience=patience):
        client, experiment_id = _ask(lambda: _opened(address), address=address, patience=patience)
    return Store(address=address, home=home, client=client, experiment_id=experiment_id, patience=patience)


def _opened(address: Address) -> tuple[MlflowClient, str]:
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
            passing = _may_pass(error)
            if not passing or time.monotonic() + pause > deadline:
                raise UserError(_explained(error, address, patience if passing else None)) from error
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help: a lock or an absence passes, a refusal does not."""
    if "sqlite3." in str(error):
        return "locked" in str(error) or "busy" in str(error)
    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        return status >= 500 or status == 429
    return True


def _explained(error: Exception, address: Address, patience: float | None) -> Fault:
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
    """The name of a run's lock: only one process writes to a run."""
    return f"run-{hashlib.sha256(key.encode('utf-8')).hexdigest()[:16]}"
