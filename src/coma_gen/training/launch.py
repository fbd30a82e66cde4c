"""Launches the ranks of a training run on one machine.

    dvc exp run -S runtime.processes=2     the train stage launches two processes of itself, as below
    torchrun ... stages/train.py           torch's launcher, for several machines

Each rank reads its rank and world size from the environment variables that torchrun defines. torchrun is not
used on one machine: its stores listen on every network interface, and it kills all ranks as soon as one has
failed, so none could save a checkpoint. These ranks rendezvous through a file, communicate over the loopback
interface only, and get time to exit by themselves.

The launcher only waits, so it does not import torch.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from coma_gen.core.errors import Fault, UserError
from coma_gen.training.signals import GracefulStop

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Environment variables of a rank, as set by torchrun."""
RENDEZVOUS = "COMA_GEN_RENDEZVOUS"
"""Environment variable with the rendezvous file; torchrun sets MASTER_ADDR and MASTER_PORT instead."""
LOST = 75
"""Exit status of a rank that exited because another one did; the launcher reports which."""
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit statuses of a rank that was stopped by a signal and saved a checkpoint."""
POLL_SECONDS = 0.1
GRACE_SECONDS = 30.0
"""Time for the other ranks to exit by themselves after one has failed or stopped with a checkpoint."""


def is_rank() -> bool:
    """Whether this process was started as one of several ranks, by `launch_ranks` or by torchrun."""
    return all(name in os.environ for name in RANK_VARIABLES)


def is_first_rank() -> bool:
    """Whether this process is the first of its ranks, or the only one."""
    return not is_rank() or int(os.environ["RANK"]) == 0


def launch_ranks(command: Sequence[str], *, processes: int) -> None:
    """Runs a command as several ranks on this machine until all have exited.

    The first SIGINT or SIGTERM is forwarded; the ranks exit after the current step. Ranks inherit stdout and
    stderr.

    Args:
        command: Program and arguments, run without a shell.
        processes: Number of ranks.

    Raises:
        UserError: If a rank was killed.
        SystemExit: With the status of a rank that failed or was stopped and has reported the reason itself.
    """
    with tempfile.TemporaryDirectory(prefix="coma-gen-ranks-") as folder, GracefulStop() as stop:
        shared = {**_loopback(), **os.environ, RENDEZVOUS: str(Path(folder, "rendezvous"))}
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(processes):
                own = dict(zip(RANK_VARIABLES, (str(rank), str(rank), str(processes)), strict=True))
                ranks.append(subprocess.Popen(command, env={**shared, **own}))
            failed = _wait(ranks, stop)
        finally:
            for process in ranks:
                process.kill()
                process.wait()
    if failed is not None:
        raise _exit_error(failed, ranks)


def _wait(ranks: Sequence[subprocess.Popen[bytes]], stop: GracefulStop) -> int | None:
    """Waits for all ranks; returns the rank that failed first, preferring one that failed on its own.

    There is no deadline until one of them has failed or stopped; then it is `GRACE_SECONDS`.
    """
    is_forwarded, failed, deadline = False, None, float("inf")
    while any(process.poll() is None for process in ranks) and time.monotonic() < deadline:
        if stop.reason is not None and not is_forwarded:
            for process in ranks:
                process.send_signal(signal.Signals[stop.reason])
            is_forwarded = True
        if failed is None:
            failed = _find_exited(ranks, but=(0, LOST, *STOPPED))
        if deadline == float("inf") and _find_exited(ranks, but=(0,)) is not None:
            deadline = time.monotonic() + GRACE_SECONDS
        time.sleep(POLL_SECONDS)
    for expected in ((0, LOST, *STOPPED), (0, LOST), (0,)):
        failed = _find_exited(ranks, but=expected) if failed is None else failed
    return failed


def _find_exited(ranks: Sequence[subprocess.Popen[bytes]], *, but: tuple[int, ...]) -> int | None:
    """Returns the first rank that has exited with a status other than `but`."""
    exited = (rank for rank, process in enumerate(ranks) if process.poll() is not None)
    return next((rank for rank in exited if ranks[rank].returncode not in but), None)


def _exit_error(failed: int, ranks: Sequence[subprocess.Popen[bytes]]) -> BaseException:
    """Returns the exception of the launcher for the rank that failed first."""
    status = ranks[failed].returncode
    if 0 < status != LOST:
        return SystemExit(status)
    where = f"rank {failed} of {len(ranks)} (process {ranks[failed].pid})"
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else "lost its connection to another"
    remedy = "the same command resumes from the last checkpoint"
    return UserError(Fault(where, f"{how}, so that all of them have ended", remedy=remedy))


def _loopback() -> dict[str, str]:
    """Returns environment variables that restrict gloo and NCCL to the loopback interface."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    return dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), names[0]) if names else {}
