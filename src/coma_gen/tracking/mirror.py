"""The mirror: one flat MLflow run for one experiment, and what the files say sent to it once.

A run is found by its tag `dvc.key` or started, under a lock, so that a follower of training and the track
stage never make two. What the store holds is read before anything is sent, and only what it lacks is sent: a
mirror that was interrupted, or is made twice, ends the same. One process at a time writes to a run.

A store can add but not correct. Where a run contradicts the files (other values at the same steps: the same
experiment was trained anew with another result) it is put away (`mlflow runs restore` brings it back) and the
mirror begins again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from coma_gen.tracking.door import Metric, Param, Run, RunTag
from coma_gen.tracking.flatten import MAX_TAG, flat_params, shortened
from coma_gen.tracking.rows import Row, is_same
from coma_gen.tracking.store import Store, lock_name

METRICS_A_BATCH = 1000
NAMES_A_BATCH = 100
"""What one request may hold: metrics; params or tags."""
NAME_TAG, KEY_TAG = "dvc.exp", "dvc.key"
CURVE_PREFIX, SPEED_PREFIX = "train/", "system/"
RUNNING, FINISHED, KILLED = "RUNNING", "FINISHED", "KILLED"

Item = TypeVar("Item")


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    name: str
    step: int
    value: float


class ContradictionError(Exception):
    """The run holds something else than the files."""


def find_or_start_run(store: Store, *, key: str, name: str) -> str:
    """The id of the one run of an experiment.

    Args:
        store: where to look.
        key: what tells this experiment from all others: the experiment's name with the digest of all params,
            the code and the corpus.
        name: what to call the run: DVC's name of the experiment, or "workspace".

    Raises:
        UserError: when the store does not answer.
    """

    def found_or_started() -> str:
        quote = '"' if "'" in key else "'"
        runs = store.client.search_runs(
            [store.experiment_id],
            filter_string=f"tags.`{KEY_TAG}` = {quote}{key}{quote}",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        if runs:
            return str(runs[0].info.run_id)
        tags = {
            NAME_TAG: name,
            KEY_TAG: key,
            "mlflow.source.name": "dvc.yaml",
            "mlflow.source.type": "PROJECT",
        }
        return str(store.client.create_run(store.experiment_id, run_name=name, tags=tags).info.run_id)

    with store.lock("runs"):
        return store.ask(found_or_started)


@contextmanager
def open_mirror(store: Store, *, key: str, name: str, params: Mapping[str, Any]) -> Iterator[Mirror]:
    """Finds or starts a run, and keeps every other process of this machine from writing to it.

    Args:
        store: where the run is.
        key: as in `find_or_start_run`.
        name: as in `find_or_start_run`.
        params: the experiment's settings, nested as in params.yaml.

    Raises:
        UserError: when the store does not answer, or another process goes on writing to the run.
    """
    with store.lock(lock_name(key)):
        yield Mirror(store, key=key, name=name, params=flat_params(params))


@dataclass
class Mirror:
    """A run that is being written to.

    Attributes:
        store: where the run is.
        key: what tells the experiment from all others.
        name: of the run.
        params: flat settings.
        sent: metric points that went to the store so far.
        run_id: MLflow's name of the run; another one after `begin_again`.
    """

    store: Store
    key: str
    name: str
    params: Mapping[str, str]
    sent: int = 0
    run_id: str = field(init=False)
    _held: dict[str, dict[int, list[float]]] = field(init=False, default_factory=dict)
    _last_time: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._find()
        try:
            self._send_params()
        except ContradictionError:
            self.begin_again()

    def sync_curve(self, rows: Sequence[Row]) -> None:
        """Sends what the store lacks of the curve, as `train/<column>`.

        Rows beyond the end of a curve that became shorter stay: a resumed training writes them again.
        """
        points = {(column, row.step): value for row in rows for column, value in row.values.items()}
        curve = [Point(CURVE_PREFIX + column, step, value) for (column, step), value in points.items()]
        try:
            self._send(curve)
        except ContradictionError:
            self.begin_again()
            self._send(curve)

    def prove_curve(self, rows: Sequence[Row]) -> None:
        """Proves that the run holds no steps but those of a finished curve.

        Raises:
            ContradictionError: when it holds others.
        """
        steps = {row.step for row in rows}
        for name, held in self._held.items():
            if name.startswith(CURVE_PREFIX) and not steps.issuperset(held):
                raise ContradictionError

    def sync_speed(self, rows: Sequence[Row]) -> None:
        """Sends what is new of the speeds, as `system/<column>`; of a step that ran twice, the first."""
        points: dict[tuple[str, int], float] = {}
        for row in rows:
            for column, value in row.values.items():
                points.setdefault((SPEED_PREFIX + column, row.step), value)
        new = [
            Point(name, step, value)
            for (name, step), value in points.items()
            if step not in self._steps(name)
        ]
        self._send(new)

    def run(self) -> Run:
        """The run as the store has it."""
        return self.store.ask(lambda: self.store.client.get_run(self.run_id))

    def mark(self, status: str) -> None:
        """Sets the run's status; FINISHED and KILLED also its end."""
        client, run = self.store.client, self.run()
        if run.info.status == status:
            return
        if status == RUNNING:
            self.store.ask(lambda: client.update_run(self.run_id, status=status))
        elif status == FINISHED or run.info.status == RUNNING:
            self.store.ask(lambda: client.set_terminated(self.run_id, status=status))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags that the run lacks or has otherwise."""
        present = self.run().data.tags
        new = [RunTag(name, shortened(text, MAX_TAG)) for name, text in tags.items()]
        for some in _batches([tag for tag in new if present.get(tag.key) != tag.value], NAMES_A_BATCH):
            self._log(tags=some)

    def send_last(self, numbers: Mapping[str, float], *, step: int) -> None:
        """Sends measures that stand at the end, so that the run's last value of each is the given one.

        Raises:
            ContradictionError: when the run holds another value of a measure that is no part of the curve.
        """
        present = self.run().data.metrics
        new = [Point(name, step, value) for name, value in numbers.items() if not _has(present, name, value)]
        if any(point.name in present and point.name not in self._held for point in new):
            raise ContradictionError
        for some in _batches(new, METRICS_A_BATCH):
            self._log_points(some)

    def begin_again(self) -> None:
        """Puts the run away and starts another in its place."""
        self.store.ask(lambda: self.store.client.delete_run(self.run_id))
        self._find()
        self._send_params()

    def _find(self) -> None:
        self.run_id = find_or_start_run(self.store, key=self.key, name=self.name)
        self._held = {}

    def _send_params(self) -> None:
        present = self.run().data.params
        if any(present.get(name, text) != text for name, text in self.params.items()):
            raise ContradictionError
        new = [Param(name, text) for name, text in self.params.items() if name not in present]
        for some in _batches(new, NAMES_A_BATCH):
            self._log(params=some)

    def _steps(self, name: str) -> dict[int, list[float]]:
        """The values that the store holds of a metric, by step."""
        if name not in self._held:
            steps: dict[int, list[float]] = {}
            for metric in self.store.ask(lambda: self.store.client.get_metric_history(self.run_id, name)):
                steps.setdefault(metric.step, []).append(metric.value)
            self._held[name] = steps
        return self._held[name]

    def _send(self, points: Iterable[Point]) -> None:
        new = []
        for point in points:
            values = self._steps(point.name).get(point.step)
            if values is None:
                new.append(point)
            elif not any(is_same(point.value, value) for value in values):
                raise ContradictionError
        for some in _batches(new, METRICS_A_BATCH):
            self._log_points(some)

    def _log_points(self, points: Sequence[Point]) -> None:
        now = self._last_time = max(int(time.time() * 1000), self._last_time + 1)
        self._log(metrics=[Metric(point.name, point.value, now, point.step) for point in points])
        self.sent += len(points)
        for point in points:
            if point.name in self._held:
                self._held[point.name].setdefault(point.step, []).append(point.value)

    def _log(
        self, *, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
    ) -> None:
        self.store.ask(lambda: self.store.client.log_batch(self.run_id, metrics, params, tags))


def _has(present: Mapping[str, float], name: str, value: float) -> bool:
    return name in present and is_same(present[name], value)


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
