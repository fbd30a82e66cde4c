"""How fast experiments trained, as MLflow recorded it: no file of an experiment holds a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coma_gen.tracking.run_sync import NAME_TAG, SPEED_PREFIX
from coma_gen.tracking.store import open_store
from coma_gen.tracking.uri import SQLITE, tracking_address

METRIC = f"{SPEED_PREFIX}tokens_per_cpu_second"
PATIENCE = 10.0


def best_speeds(home: Path, names: Iterable[str]) -> dict[str, float]:
    """Name of an experiment -> tokens a CPU second while training: the best of its newest run's rows.

    The clock would say how busy the machine was; the best row is the one that other programs disturbed least.
    What was restored from a cache never trained, and is not there; nor is anything where no store is.

    Args:
        home: the checkout that lasts.
        names: of the experiments to look for.

    Raises:
        UserError: when a store is there but does not answer.
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
