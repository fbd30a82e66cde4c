"""Starts the ranks of one machine: the processes that share each training step.

    dvc exp run -S runtime.processes=2     the train stage starts two of itself, as below, and waits for them
    torchrun ... stages/train.py           torch's launcher starts them; for several machines

Each rank finds in its environment who it is, under the names that torchrun gives it. torchrun itself is not
used here: its stores listen on every network interface, and it ends all ranks as soon as one has failed, so
that none could save what was done. Ours meet in a file, talk over the loopback interface alone, and are
given time to end by themselves.

Nothing of torch is imported: the launcher's work is to wait.
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
"""What tells a process that it is a rank, and which."""
RENDEZVOUS = "COMA_GEN_RENDEZVOUS"
"""Names the file that ranks meet in; torchrun gives MASTER_ADDR and MASTER_PORT instead."""
LOST = 75
"""Exit status of a rank that ended because another one did; who started it says which."""
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit statuses of a rank that was asked to stop, and did so with a checkpoint."""
POLL_SECONDS = 0.1
GRACE_SECONDS = 30.0
"""For the other ranks to end by themselves once one has failed, or stopped with a checkpoint."""


def is_rank() -> bool:
    """Whether this process was started as one of several ranks, by `launch_ranks` or by torchrun."""
    return all(name in os.environ for name in RANK_VARIABLES)


def is_first_rank() -> bool:
    """Whether this process is the first of its ranks, or the only one."""
    return not is_rank() or int(os.environ["RANK"]) == 0


def launch_ranks(command: Sequence[str], *, processes: int) -> None:
    """Runs a command as that many ranks on this machine, until all have ended.

    SIGINT and SIGTERM are passed on, once; the ranks end after the step at hand. What a rank has to say, it
    writes to this process's own stdout and stderr.

    Args:
        command: program and arguments; no shell sees it.
        processes: how many, all on this machine.

    Raises:
        UserError: when a rank was killed.
        SystemExit: with the status of a rank that failed or was stopped, and said so itself.
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
        raise _ending(failed, ranks)


def _wait(ranks: Sequence[subprocess.Popen[bytes]], stop: GracefulStop) -> int | None:
    """Waits for all to end; returns the rank that failed first, for a reason of its own if one did.

    Ranks have all the time they need until one of them has failed or stopped; then `GRACE_SECONDS`.
    """
    is_told, failed, deadline = False, None, float("inf")
    while any(process.poll() is None for process in ranks) and time.monotonic() < deadline:
        if stop.reason is not None and not is_told:
            for process in ranks:
                process.send_signal(signal.Signals[stop.reason])
            is_told = True
        if failed is None:
            failed = _ended_with(ranks, but=(0, LOST, *STOPPED))
        if deadline == float("inf") and _ended_with(ranks, but=(0,)) is not None:
            deadline = time.monotonic() + GRACE_SECONDS
        time.sleep(POLL_SECONDS)
    for kindly in ((0, LOST, *STOPPED), (0, LOST), (0,)):
        failed = _ended_with(ranks, but=kindly) if failed is None else failed
    return failed


def _ended_with(ranks: Sequence[subprocess.Popen[bytes]], *, but: tuple[int, ...]) -> int | None:
    """The first rank that has ended with another status than these."""
    ended = (rank for rank, process in enumerate(ranks) if process.poll() is not None)
    return next((rank for rank in ended if ranks[rank].returncode not in but), None)


def _ending(failed: int, ranks: Sequence[subprocess.Popen[bytes]]) -> BaseException:
    """What the launcher ends with, given the rank that failed first."""
    status = ranks[failed].returncode
    if 0 < status != LOST:
        return SystemExit(status)
    where = f"rank {failed} of {len(ranks)} (process {ranks[failed].pid})"
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else "lost its connection to another"
    remedy = "the same command goes on from the last checkpoint"
    return UserError(Fault(where, f"{how}, so that all of them have ended", remedy=remedy))


def _loopback() -> dict[str, str]:
    """Keeps what gloo and NCCL listen on to this machine."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    return dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), names[0]) if names else {}
