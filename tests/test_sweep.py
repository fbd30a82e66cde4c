"""A sweep of a dozen learning rates and seeds in DVC's queue, with two workers.

Only training runs: the later stages are the same for every experiment, and test_experiments.py covers them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import Built, coma_gen, copy_of, dvc
from mlflow_records import OF_MLFLOW
from subprocess_utils import end_processes, run, wait_until

from coma_gen.experiments.queue import read_queue
from coma_gen.tracking.store import open_store

pytestmark = [pytest.mark.slow, *map(pytest.mark.filterwarnings, OF_MLFLOW)]
RATES, SEEDS = ("1e-3", "2e-3", "4e-3", "10"), ("1", "2", "3")
"""The last rate is far too high: its loss explodes after a step."""
ENDED, FAILED = 9, 3


@pytest.fixture(scope="module")
def swept(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout after the sweep."""
    checkout = copy_of(built.folder, tmp_path_factory.mktemp("swept") / "checkout")
    for name in ("name", "email"):
        run(checkout, "git", "config", f"user.{name}", "t@localhost")
    sweep = (
        "train.optimizer=adamw",
        f"train.learning_rate={','.join(RATES)}",
        f"train.seed={','.join(SEEDS)}",
    )
    dvc(checkout, "exp", "run", "--queue", *(word for change in sweep for word in ("-S", change)), "train")
    assert read_queue(checkout).counts == {"Queued": ENDED + FAILED}
    dvc(checkout, "queue", "start", "-j", "2")
    try:
        for count in range(1, ENDED + FAILED + 1):  # the patience is for each
            wait_until(
                lambda count=count: ended(checkout) >= count, told=lambda: statuses(checkout), every=4.0
            )
        yield checkout
    finally:
        end_processes(checkout)


def ended(checkout: Path) -> int:
    counts = read_queue(checkout).counts
    return counts.get("Success", 0) + counts.get("Failed", 0)


def statuses(checkout: Path) -> str:
    return dvc(checkout, "queue", "status")


def test_none_has_two_runs(swept: Path) -> None:
    """A follower that is slower than a training of seconds may leave none; the track stage would make it."""
    store = open_store(swept)
    runs = store.client.search_runs([store.experiment_id])
    of_sweep = [found for found in runs if found.data.params.get("train.seed") in SEEDS]
    names = {found.data.tags["dvc.exp"] for found in of_sweep}
    keys = ("train.learning_rate", "train.seed")
    settings = {tuple(found.data.params[key] for key in keys) for found in of_sweep}
    assert len(of_sweep) == len(names) == len(settings) <= ENDED + FAILED


def test_each_that_ended_is_an_experiment_with_settings_of_its_own(swept: Path) -> None:
    shown = json.loads(dvc(swept, "exp", "show", "--json"))
    experiments = next(item for item in shown if item["rev"] != "workspace")["experiments"]
    ends = [item for item in experiments if (item["executor"] or {}).get("state") != "failed"]
    found = [item["revs"][0]["data"]["params"]["params.yaml"]["data"]["train"] for item in ends]
    settings = {(train["learning_rate"], train["seed"]) for train in found if str(train["seed"]) in SEEDS}
    expected = {(float(rate), int(seed)) for rate in RATES[:3] for seed in SEEDS}
    assert settings == expected


def test_those_that_failed_are_told_with_the_reason(swept: Path) -> None:
    queue = read_queue(swept)
    assert queue.counts == {"Success": ENDED, "Failed": FAILED}
    assert len(queue.failed) == FAILED
    assert all(why.startswith("train: train step ") and "must" in why for why in queue.failed.values())
    status, output = coma_gen(swept, "experiments")
    assert status == 0 and f"DVC's queue: {ENDED} ended, {FAILED} failed" in output
    assert all(f"  - {name}: {why}" in output for name, why in queue.failed.items())
