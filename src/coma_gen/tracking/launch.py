"""Starts the follower of a training run in a separate process.

This is all that training knows of MLflow: it starts a process and signals it when training has succeeded.
Nothing here waits for the follower or can interrupt training.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from coma_gen.core.errors import UserError
from coma_gen.tracking.follow import ENDED_WELL
from coma_gen.tracking.run_id import identify
from coma_gen.workspace.paths import Workspace

NULL = os.devnull


class Follower:
    """A follower process; `pid` is None if it could not be started."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid

    def finish(self) -> None:
        """Signals that training has succeeded.

        The follower then sends the remaining rows, marks the run as finished and exits. If training ends
        without this signal, the follower marks the run as killed.
        """
        if self.pid is not None:
            try:
                os.kill(self.pid, ENDED_WELL)
            except OSError:
                self.pid = None


def follow_training(workspace: Workspace, folder: Path) -> Follower:
    """Starts the follower of the training in a workspace. Like `start_follower`, this never raises.

    Args:
        workspace: The workspace that training runs in.
        folder: Its resume folder, with curve.csv and speed.csv.

    Returns:
        The follower. There is none without the corpus, from which the run key is computed, for example on a
        machine that only trains.
    """
    if not workspace.data("corpus").exists():
        return _skip("no data/corpus here")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name, key = identify(workspace.root)
    except (UserError, OSError) as error:
        return _skip(error)
    return start_follower(
        curve=folder / "curve.csv",
        speed=folder / "speed.csv",
        home=workspace.home,
        key=key,
        name=name,
        params=workspace.params,
        log=folder / "follower.log",
    )


def start_follower(
    *, curve: Path, speed: Path, home: Path, key: str, name: str, params: Path, log: Path | None = None
) -> Follower:
    """Starts a process that sends a growing curve to MLflow until this process exits.

    This never raises: a failure to start is reported on stderr, and the track stage sends everything later.

    Args:
        curve: Learning curve; need not exist yet.
        speed: Training speeds; need not exist yet.
        home: The permanent checkout, which contains the store.
        key: Unique key of the experiment.
        name: Name of the run.
        params: Path of params.yaml.
        log: File for the follower's errors; None discards them.
    """
    paths = {"--curve": curve, "--speed": speed, "--home": home, "--params": params}
    words = [text for option, path in paths.items() for text in (option, str(path.resolve()))]
    words += ["--key", key, "--name", name, "--parent", str(os.getpid())]
    source = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH")) if part)
    environment = {**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    output = NULL if log is None else str(log)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "coma_gen.tracking.follow", *words],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, NULL, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, output, flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    except (OSError, NotImplementedError, ValueError) as error:
        return _skip(error)
    return Follower(pid)


def _skip(reason: object) -> Follower:
    sys.stderr.write(f"No live MLflow logging ({reason}); the track stage sends everything.\n")
    return Follower(None)
