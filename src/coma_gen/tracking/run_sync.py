"""Synchronizes the files of an experiment with one MLflow run; repeated syncs are idempotent.

A run is found by its tag `digest.key` or else created, under a lock, so that the follower of training and the
track stage never create two. The store is read first and only missing values are sent, so that an interrupted
or repeated sync has the same result. Only one process at a time writes to a run.

MLflow can add values but not change them. If a run conflicts with the files (other values at the same steps,
because the experiment was trained again with another result), it is deleted (`mlflow runs restore` recovers
it) and a new run is created.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from coma_gen.tracking.client import Metric, Param, Run, RunTag
from coma_gen.tracking.csv_tail import Row, is_same
from coma_gen.tracking.flatten import MAX_TAG, flat_params, shorten
from coma_gen.tracking.store import Store, lock_name

METRICS_A_BATCH = 1000
NAMES_A_BATCH = 100
"""Limits of one request: metrics; params or tags."""
NAME_TAG, COMMIT_TAG = "dvc.exp", "git.commit"
KEY_TAG, EXPERIMENT_TAG, CHECKOUT_TAG = "digest.key", "digest.experiment", "digest.place"
COMPLETE_TAG = "digest.artifacts"
"""Tags: name, commit; digests: key, key without name, the creating checkout, artifacts (of complete runs)."""
CURVES = {
    "train_loss": "loss/train",
    "validation_nll": "loss/validation",
    "learning_rate": "optimizer/learning_rate",
    "grad_norm": "optimizer/grad_norm",
}
"""Column of the curve -> metric. MLflow groups charts by the prefix and sorts them: the losses come first."""
SPEED_PREFIX = "system/"
RUNNING, FINISHED, KILLED = "RUNNING", "FINISHED", "KILLED"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    name: str
    step: int
    value: float


class RunConflictError(Exception):
    """The values in the run conflict with the files."""


def find_or_start_run(store: Store, *, key: str, name: str, adopt: bool = True) -> str:
    """Returns the id of the run of an experiment, which is created if it does not exist.

    Without a name, `dvc exp run` generates a new one each time. An interrupted experiment that is resumed
    under another name is therefore found by the digest in its key, and renamed.

    Args:
        store: The store.
        key: Unique key of the experiment: its name followed by the digest of all params, the code and the
            corpus.
        name: Name of the run: that of the DVC experiment, or "workspace".
        adopt: Whether to adopt an interrupted run of another name.

    Raises:
        UserError: If the store does not answer.
    """
    digest = key.removeprefix(f"{name}-")

    def find_or_create() -> str:
        quote = '"' if "'" in digest else "'"
        runs = store.client.search_runs(
            [store.experiment_id],
            filter_string=f"tags.`{EXPERIMENT_TAG}` = {quote}{digest}{quote}",
            order_by=["attributes.start_time ASC"],
        )
        for run in runs:
            if run.data.tags.get(KEY_TAG) == key:
                return str(run.info.run_id)
        if adopt and (abandoned := next((run for run in runs if _is_abandoned(store, run)), None)):
            return _adopt(store, abandoned, key=key, name=name)
        tags = {
            NAME_TAG: name,
            KEY_TAG: key,
            EXPERIMENT_TAG: digest,
            CHECKOUT_TAG: store.checkout_id,
            "mlflow.source.name": "dvc.yaml",
            "mlflow.source.type": "PROJECT",
        }
        return str(store.client.create_run(store.experiment_id, run_name=name, tags=tags).info.run_id)

    with store.lock("runs"):
        return store.ask(find_or_create)


def _is_abandoned(store: Store, run: Run) -> bool:
    """Whether a run of this checkout was interrupted: it is incomplete, and no process writes to it."""
    tags = run.data.tags
    is_ours = tags.get(CHECKOUT_TAG) == store.checkout_id
    return is_ours and COMPLETE_TAG not in tags and store.is_free(lock_name(tags[KEY_TAG]))


def _adopt(store: Store, run: Run, *, key: str, name: str) -> str:
    run_id = str(run.info.run_id)
    store.client.update_run(run_id, name=name)
    store.client.log_batch(run_id, tags=[RunTag(NAME_TAG, name), RunTag(KEY_TAG, key)])
    return run_id


@contextmanager
def open_run_sync(store: Store, *, key: str, name: str, params: Mapping[str, Any]) -> Iterator[RunSync]:
    """Finds or creates a run, and locks it against other writers on this machine.

    Args:
        store: The store.
        key: As in `find_or_start_run`.
        name: As in `find_or_start_run`.
        params: Settings of the experiment, nested as in params.yaml.

    Raises:
        UserError: If the store does not answer, or another process does not release the run.
    """
    with store.lock(lock_name(key)):
        yield RunSync(store, key=key, name=name, params=flat_params(params))


@dataclass
class RunSync:
    """A run that is being written to.

    Attributes:
        store: The store.
        key: Unique key of the experiment.
        name: Name of the run.
        params: Flattened settings.
        sent: Number of metric points sent so far.
        run_id: MLflow's id of the run; `restart_run` changes it.
    """

    store: Store
    key: str
    name: str
    params: Mapping[str, str]
    sent: int = 0
    run_id: str = field(init=False)
    _stored: dict[str, dict[int, list[float]]] = field(init=False, default_factory=dict)
    _last_time: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._find()
        try:
            self._send_params()
        except RunConflictError:
            self.restart_run()

    def sync_curve(self, rows: Sequence[Row]) -> None:
        """Sends the missing points of the curve, under the names of `CURVES`.

        If the curve became shorter, later points stay in the store: resumed training writes them again.
        """
        points = {
            (CURVES[column], row.step): value
            for row in rows
            for column, value in row.values.items()
            if column in CURVES
        }
        curve = [Point(name, step, value) for (name, step), value in points.items()]
        try:
            self._send(curve)
        except RunConflictError:
            self.restart_run()
            self._send(curve)

    def verify_curve(self, rows: Sequence[Row]) -> None:
        """Checks that the run has no steps other than those of a finished curve.

        Raises:
            RunConflictError: If it has others.
        """
        steps = {row.step for row in rows}
        for name in CURVES.values():
            if not steps.issuperset(self._stored.get(name, ())):
                raise RunConflictError

    def sync_speed(self, rows: Sequence[Row]) -> None:
        """Sends new speeds as `system/<column>`; if a step ran twice, the first speed is used."""
        points: dict[tuple[str, int], float] = {}
        for row in rows:
            for column, value in row.values.items():
                points.setdefault((SPEED_PREFIX + column, row.step), value)
        self._send_new([Point(name, step, value) for (name, step), value in points.items()])

    def sync_system(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the system metrics before a step as `system/<name>`."""
        self._send_new([Point(SPEED_PREFIX + name, step, value) for name, value in values.items()])

    def run(self) -> Run:
        """Reads the run from the store."""
        return self.store.ask(lambda: self.store.client.get_run(self.run_id))

    def mark(self, status: str) -> None:
        """Sets the status of the run; FINISHED and KILLED also set its end time."""
        client, run = self.store.client, self.run()
        if run.info.status == status:
            return
        if status == RUNNING:
            self.store.ask(lambda: client.update_run(self.run_id, status=status))
        elif status == FINISHED or run.info.status == RUNNING:
            self.store.ask(lambda: client.set_terminated(self.run_id, status=status))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets the tags that are missing or differ."""
        present = self.run().data.tags
        new = [RunTag(name, shorten(text, MAX_TAG)) for name, text in tags.items()]
        for some in _batches([tag for tag in new if present.get(tag.key) != tag.value], NAMES_A_BATCH):
            self._log(tags=some)

    def send_figures(self, figures: Mapping[str, float], measured: Mapping[str, float]) -> None:
        """Sends final figures at step 0; MLflow draws metrics that have no later step as bar charts.

        Args:
            figures: Figures from the files.
            measured: Figures measured on this machine; existing values in the run are retained.

        Raises:
            RunConflictError: If the run has another value of a figure.
        """
        present = self.run().data.metrics
        if any(name in present and not is_same(present[name], value) for name, value in figures.items()):
            raise RunConflictError
        new = [
            Point(name, 0, value) for name, value in {**figures, **measured}.items() if name not in present
        ]
        for some in _batches(new, METRICS_A_BATCH):
            self._log_points(some)

    def restart_run(self) -> None:
        """Deletes the run and creates a new one."""
        self.store.ask(lambda: self.store.client.delete_run(self.run_id))
        self._find(adopt=False)
        self._send_params()

    def _find(self, *, adopt: bool = True) -> None:
        self.run_id = find_or_start_run(self.store, key=self.key, name=self.name, adopt=adopt)
        self._stored = {}

    def _send_params(self) -> None:
        present = self.run().data.params
        if any(present.get(name, text) != text for name, text in self.params.items()):
            raise RunConflictError
        new = [Param(name, text) for name, text in self.params.items() if name not in present]
        for some in _batches(new, NAMES_A_BATCH):
            self._log(params=some)

    def _steps(self, name: str) -> dict[int, list[float]]:
        """Returns the values of a metric in the store, by step."""
        if name not in self._stored:
            steps: dict[int, list[float]] = {}
            for metric in self.store.ask(lambda: self.store.client.get_metric_history(self.run_id, name)):
                steps.setdefault(metric.step, []).append(metric.value)
            self._stored[name] = steps
        return self._stored[name]

    def _send_new(self, points: Sequence[Point]) -> None:
        self._send(point for point in points if point.step not in self._steps(point.name))

    def _send(self, points: Iterable[Point]) -> None:
        new = []
        for point in points:
            values = self._steps(point.name).get(point.step)
            if values is None:
                new.append(point)
            elif not any(is_same(point.value, value) for value in values):
                raise RunConflictError
        for some in _batches(new, METRICS_A_BATCH):
            self._log_points(some)

    def _log_points(self, points: Sequence[Point]) -> None:
        now = self._last_time = max(int(time.time() * 1000), self._last_time + 1)
        self._log(metrics=[Metric(point.name, point.value, now, point.step) for point in points])
        self.sent += len(points)
        for point in points:
            if point.name in self._stored:
                self._stored[point.name].setdefault(point.step, []).append(point.value)

    def _log(
        self, *, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
    ) -> None:
        self.store.ask(lambda: self.store.client.log_batch(self.run_id, metrics, params, tags))


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
