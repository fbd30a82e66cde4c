"""Runs of several ranks, each a child of this program, so that torch is imported once for all of them.

python forked_ranks.py FOLDER      every run below; what came of them is in FOLDER/RUN/
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import torch
import trainer
from safetensors.torch import save_file
from torch import Tensor

from coma_gen.core.errors import UserError
from coma_gen.training.distributed import init_distributed
from coma_gen.training.launch import RANK_VARIABLES, RENDEZVOUS, _loopback
from coma_gen.training.signals import TrainingInterrupted

SETTINGS: dict[str, Any] = {
    "seq_len": 40,  # two of the three pieces are shorter, so that windows have unequal numbers of targets
    "micro_batch": 2,
    "grad_accum_steps": 2,
    "steps": 30,
    "log_every": 1,
    "validate_every": 10,
    "checkpoint_every": 10,
}
DRY = {"embedding_dropout": 0.0, "attention_dropout": 0.0, "ff_dropout": 0.0, "conv_dropout": 0.0}
FEW = {"steps": 6, "validate_every": 3, "checkpoint_every": 5}
THREE = FEW | {"micro_batch": 1, "grad_accum_steps": 3}
WORSE = {"learning_rate": 1.0, "warmup_steps": 0, "validate_every": 2, "early_stopping": 1}
Act = Callable[[list[int]], None]


class Odd(torch.nn.Module):
    """A model that takes its time, or whose loss is no number from some training step of this rank on."""

    def __init__(self, inner: torch.nn.Module, pause: float, healthy: int | None) -> None:
        super().__init__()
        self.inner, self.pause, self.left = inner, pause, healthy

    def forward(self, input_ids: Tensor) -> Tensor:
        time.sleep(self.pause)
        logits: Tensor = self.inner(input_ids)
        if self.left is None or not self.training:
            return logits
        self.left -= 1
        return logits if self.left >= 0 else logits * float("nan")


def train_as_rank(
    run: Path, *, dry: bool, pause: float, healthy: int | None, changes: dict[str, Any]
) -> None:
    """One rank of a run; the first notes what it gave."""
    model = Odd(trainer.make_model(**(DRY if dry else {})), pause, healthy)
    try:
        with init_distributed() as ranks:
            result = trainer.train(
                run, model=model, shards=run.with_name("shards"), ranks=ranks, **{**SETTINGS, **changes}
            )
            for each in psutil.Process().net_connections("inet"):
                if each.status == psutil.CONN_LISTEN and not ip_address(each.laddr.ip).is_loopback:
                    print("listens on", each.laddr)  # noqa: T201
    except TrainingInterrupted as stopped:
        print(stopped, flush=True)  # noqa: T201
        raise SystemExit(stopped.exit_status) from None
    except UserError as error:
        print(error, flush=True)  # noqa: T201
        raise SystemExit(1) from None
    if result is not None:
        save_file(result.last_state, run / "last.safetensors")
        (run / "metrics.json").write_text(json.dumps(result.metrics))


def threads() -> list[str]:
    """The names of this process's threads, torch's included, where the system tells."""
    return [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]


def fork_rank(work: Callable[[], None], output: Path, rank_environment: dict[str, str]) -> int:
    """Forks a child that does `work` as a rank, its output in a file; returns its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.update(rank_environment)
        for stream in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        work()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        if left := [name for name in threads() if "gloo" in name]:
            print("still there:", *left)  # noqa: T201
        sys.stdout.flush()
        sys.excepthook(*sys.exc_info()) if sys.exc_info()[0] else None
        os._exit(status)


def run_ranks(
    run: Path,
    size: int,
    *,
    dry: bool = False,
    pause: float = 0.0,
    poison: dict[int, int] | None = None,
    keys: dict[int, str] | None = None,
    after: tuple[int, Act] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Runs that many ranks to their end.

    Args:
        run: the resume folder.
        size: how many.
        dry: without dropout.
        pause: seconds of a forward pass beside its work.
        poison: rank -> healthy forward passes in training before its loss is no number.
        keys: rank -> another key of the run.
        after: a step, and what to do to the process ids once it is logged.
        changes: of the settings.

    Returns:
        statuses and outputs by rank, and the checkpoints that are there.
    """
    run.mkdir(exist_ok=True)
    attempt = len(list(run.glob("attempt-*")))
    folder = run / f"attempt-{attempt}"
    folder.mkdir()
    children = []
    for rank in range(size):
        rank_environment = dict(zip(RANK_VARIABLES, (str(rank), str(rank), str(size)), strict=True))
        work = partial(
            train_as_rank,
            run,
            dry=dry,
            pause=pause,
            healthy=(poison or {}).get(rank),
            changes=changes | ({"key": keys[rank]} if keys and rank in keys else {}),
        )
        meeting = {RENDEZVOUS: str(folder / "rendezvous"), **_loopback()}
        children.append(fork_rank(work, folder / f"{rank}.txt", rank_environment | meeting))
    if after is not None:
        step, act = after
        end = time.monotonic() + 60
        while not ((run / "curve.csv").exists() and f"\n{step}," in (run / "curve.csv").read_text()):
            if time.monotonic() > end:
                raise RuntimeError(f"{run.name} does not move")
            time.sleep(0.005)
        act(children)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    checkpoints = sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    outputs = [(folder / f"{rank}.txt").read_text() for rank in range(size)]
    return {"statuses": statuses, "outputs": outputs, "checkpoints": checkpoints}


def signaled(rank: int, number: signal.Signals) -> Act:
    """Signals one rank."""
    return lambda children: os.kill(children[rank], number)


def all_runs(folder: Path) -> dict[str, Sequence[dict[str, Any]]]:
    """Name of a resume folder -> what came of each run in it."""
    slow = {"pause": 0.01}
    moved, again = folder / "moved", folder / "again"
    return {
        "one": [run_ranks(folder / "one", 1)],
        "two": [run_ranks(folder / "two", 2)],
        "one dry": [run_ranks(folder / "one dry", 1, dry=True, **FEW)],
        "four dry": [run_ranks(folder / "four dry", 4, dry=True, **FEW)],
        "moved": [
            run_ranks(moved, 1, after=(4, signaled(0, signal.SIGTERM)), **slow),
            run_ranks(moved, 2, after=(11, signaled(1, signal.SIGKILL)), **slow),
            run_ranks(moved, 2, after=(16, signaled(1, signal.SIGTERM)), **slow),
            run_ranks(moved, 1),
        ],
        "three": [run_ranks(folder / "three", 3, **THREE)],
        "again": [
            run_ranks(again, 3, after=(2, signaled(2, signal.SIGTERM)), **slow, **THREE),
            run_ranks(again, 3, **THREE),
        ],
        "taught": [run_ranks(folder / "taught", 1, teacher=trainer.make_teacher(), **FEW)],
        "taught in two": [run_ranks(folder / "taught in two", 2, teacher=trainer.make_teacher(), **FEW)],
        "worse": [run_ranks(folder / "worse", 1, **WORSE)],
        "worse in two": [run_ranks(folder / "worse in two", 2, **WORSE)],
        "poisoned": [run_ranks(folder / "poisoned", 2, poison={1: 4}, **FEW)],
        "other key": [run_ranks(folder / "other key", 2, keys={1: "b" * 64})],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    trainer.prepare(target)
    (target / "runs.json").write_text(json.dumps(all_runs(target)))
