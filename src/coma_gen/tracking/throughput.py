"""Training speeds of experiments, read from MLflow, since the outputs of an experiment contain no times."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coma_gen.tracking.run_sync import NAME_TAG, SPEED_PREFIX
from coma_gen.tracking.store import open_store
from coma_gen.tracking.uri import SQLITE, tracking_address

METRIC = f"{SPEED_PREFIX}tokens_per_cpu_second"
PATIENCE = 10.0


def best_speeds(home: Path, names: Iterable[str]) -> dict[str, float]:
    """Maps each experiment to its best training speed, in tokens per CPU second, in its newest run.

    CPU time, unlike wall time, does not depend on the load of the machine, and the best row is the one least
    disturbed by other programs. Experiments restored from a cache have no speed and are omitted; the result
    is empty if there is no store.

    Args:
        home: The permanent checkout.
        names: Names of the experiments.

    Raises:
        UserError: If there is a store but it does not answer.
    """
    address = tracking_address(home)
    if address.artifacts is not None and not Path(address.uri.removeprefix(SQLITE)).exists():
        return {}
    store = open_store(home, patience=PATIENCE)

    def of_newest(name: str) -> float | None:
        runs = store.client.search_runs(
            [store.experiment_id],
            filter_string=f"tags.`{NAME_TAG}` = '{name}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        if not runs:
            return None
        history = store.client.get_metric_history(runs[0].info.run_id, METRIC)
        return max((metric.value for metric in history), default=None)

    found = {name: store.ask(lambda name=name: of_newest(name)) for name in names}  # type: ignore[misc]
    return {name: speed for name, speed in found.items() if speed is not None}
