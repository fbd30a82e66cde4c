"""Shared fixtures: one thread per test, for reproducible floats and speed; a checkout with all stages run."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from checkout import Built

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "Agg"
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background job; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow files first: whoever shares them out among processes ends with small change."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Built:
    """A finished checkout, to be looked at and copied, not to be changed; one for all processes of a run."""
    from checkout import Built, build

    if worker_id == "master":
        return build(tmp_path_factory.mktemp("built") / "checkout")
    shared = tmp_path_factory.getbasetemp().parent / "built"
    with FileLock(shared.with_suffix(".lock")):
        if not (shared / "built.json").exists():
            shutil.rmtree(shared, ignore_errors=True)  # somebody failed on the way
            build(shared / "checkout").save(shared / "built.json")
        return Built.load(shared / "built.json")
