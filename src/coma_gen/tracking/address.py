"""Where the runs are kept, and how to look at them; no MLflow is needed to say so."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

EXPERIMENT = "coma-gen"
MODEL = "coma-gen"
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
LOCKS = ".mlflow"
SQLITE = "sqlite:///"
RUNS_PAGE = "#/experiments/1/runs?workflowType=machine_learning"
"""Where MLflow's UI lists the runs of the first experiment of a store, which is ours in a store of our own.
"""


@dataclass(frozen=True)
class Address:
    """Where MLflow keeps things.

    Attributes:
        uri: the tracking address, absolute.
        artifacts: the folder of the artifacts; None where a server decides.
    """

    uri: str
    artifacts: Path | None

    @property
    def shown(self) -> str:
        """The address without a user's name or password."""
        return re.sub(r"//[^/@]*@", "//", self.uri)


def tracking_address(home: Path) -> Address:
    """`MLFLOW_TRACKING_URI` where it is set, else mlflow.db in `home`; relative paths start at `home`.

    Args:
        home: the checkout that lasts, also for experiments run in a temporary copy.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{DATABASE}"
    if not uri.startswith(SQLITE):
        return Address(uri=uri, artifacts=None)
    database = home.resolve() / uri.removeprefix(SQLITE)
    return Address(uri=f"{SQLITE}{database}", artifacts=database.parent / ARTIFACTS)


def ui_command(home: Path, *, port: int = 5000) -> str:
    """The command that shows the runs in a browser, on this machine only; to be typed in `home`.

    Where a server keeps the runs, its address is returned instead.
    """
    address = tracking_address(home)
    if address.artifacts is None:
        return address.shown
    database = Path(address.uri.removeprefix(SQLITE))
    local = database.relative_to(home.resolve()) if database.is_relative_to(home.resolve()) else database
    words = [
        "mlflow",
        "ui",
        "--backend-store-uri",
        f"{SQLITE}{local}",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    return shlex.join(words)
