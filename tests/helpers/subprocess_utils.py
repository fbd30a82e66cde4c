"""Runs commands in separate processes with a clean environment: without a git identity, an installation of
this project, or user settings.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

PATIENCE = 300.0
"""Seconds that a command, or what is waited for, may take on a busy machine."""


@cache
def home() -> Path:
    """An empty home, removed when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="coma-gen-home-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def environment() -> dict[str, str]:
    """This process's environment, without what would tell a stage of another run or of this source, with
    this interpreter first, with no git identity, and with the plainest shell.
    """
    others = ("COMA_GEN_", "DVC_", "GIT_", "MLFLOW_", "PYTHON", "SHELL", "XDG_")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(others)}
    binaries = Path(sys.executable).parent
    return inherited | {
        "PATH": os.pathsep.join([str(binaries), inherited["PATH"]]),
        "VIRTUAL_ENV": str(binaries.parent),
        "HOME": str(home()),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home() / "dvc"),
        "PYTHONUNBUFFERED": "1",
    }


@dataclass
class Job:
    """A command that runs in a process group of its own.

    Attributes:
        process: the command.
        log: what it and its children write, stdout and stderr together.
    """

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """What was written so far."""
        return self.log.read_text(errors="replace")

    def wait(self) -> int:
        """The exit status, once it ends; negative where a signal ended it."""
        return self.process.wait(timeout=PATIENCE)

    def signal_group(self, number: signal.Signals) -> None:
        """Signals the command with all its children, as a terminal or a service manager does."""
        os.killpg(self.process.pid, number)

    def members(self, word: str) -> list[psutil.Process]:
        """Living processes of the group whose command line holds `word`."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and os.getpgid(process.pid) == self.process.pid and word in process.cmdline():
                    found.append(process)
        return found


@contextmanager
def started(checkout: Path, *command: str, env: dict[str, str] | None = None) -> Iterator[Job]:
    """A command that runs in the checkout; what is left of its group is killed when the block ends."""
    handle, log = tempfile.mkstemp(prefix="job-", suffix=".log", dir=home())
    with os.fdopen(handle, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=checkout,
            env=environment() | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Job(process, Path(log))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def attempt(checkout: Path, *command: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Runs a command in the checkout; returns its exit status, and stdout and stderr together."""
    with started(checkout, *command, env=env) as job:
        return job.wait(), job.output


def run(checkout: Path, *command: str, env: dict[str, str] | None = None, check: bool = True) -> str:
    """As `attempt`, without the status.

    Raises:
        AssertionError: with the output, when `check` and it fails.
    """
    status, output = attempt(checkout, *command, env=env)
    assert not check or status == 0, f"{' '.join(command)} ended with {status}:\n{output[-6000:]}"
    return output


def wait_until(condition: Callable[[], bool], *, told: Callable[[], str] = str, every: float = 0.05) -> None:
    """Polls until it holds, with so many seconds between two looks.

    Raises:
        AssertionError: with `told()`, when the patience is spent.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(every)


def end_processes(folder: Path) -> None:
    """Kills every process that works in a folder, such as the workers of DVC's queue."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid():
                process.kill()
