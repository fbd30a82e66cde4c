"""Starts the follower of a training, in a process of its own.

Training knows no more of MLflow than this: a process is started, and told when training has ended well.
Nothing here waits for it or can stop training.
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
    """A follower's process, or none where it could not be started."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid

    def finish(self) -> None:
        """Tells that training has ended well; the follower sends what is left, marks the run as finished, and
        ends by itself.

        A follower whose training ends without this word marks the run as killed.
        """
        if self.pid is not None:
            try:
                os.kill(self.pid, ENDED_WELL)
            except OSError:
                self.pid = None


def follow_training(workspace: Workspace, folder: Path) -> Follower:
    """Starts the follower of a workspace's training.

    Args:
        workspace: where training runs.
        folder: its resume folder, where it writes curve.csv and speed.csv.

    Returns:
        The follower; none where the corpus, which names the run, is not, as on a machine that only trains.
        This never raises, as `start_follower`.
    """
    if not workspace.data("corpus").exists():
        return _none("no data/corpus here")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name, key = identify(workspace.root)
    except (UserError, OSError) as error:
        return _none(error)
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
    """Starts a process that sends a growing curve to MLflow until this process is gone.

    Args:
        curve: training's curve; need not exist yet.
        speed: training's speeds; the same.
        home: the checkout that lasts, with the store.
        key: what tells the experiment from all others.
        name: of the run.
        params: params.yaml.
        log: where the follower writes what went wrong; None drops it.

    Returns:
        The follower. This never raises: what could not be started is told on stderr, and `track` sends
        everything later.
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
        return _none(error)
    return Follower(pid)


def _none(reason: object) -> Follower:
    sys.stderr.write(f"No live MLflow logging ({reason}); the track stage sends everything.\n")
    return Follower(None)
