"""Training runs that are killed and restarted. It is a separate program, since its process must not have
trained before it forks.

python dying_training.py times FOLDER KILLS      at random times
python dying_training.py calls FOLDER EVERY      at each EVERYth call that changes the disk

It prints {"tried": kills, "digests": the final digest of each run}. Its children inherit the imported torch,
the open shards and one thread, so that a try takes tenths of a second.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from coma_gen.tracking.csv_tail import read_rows
from coma_gen.training import checkpoint
from faults.broken_disk import KILLED, broken_disk, kill_at
from training import trainer

SEED = 1


def written_by_python(tensors: Any, path: Path) -> None:
    """Writes a safetensors file by calls that can be counted, which those of the library's Rust cannot."""
    with path.open("wb") as file:
        file.write(save(tensors))


def train(folder: Path, steps: int = 10) -> None:
    """Leaves what the run gives beside its folder of checkpoints; reads the speeds, which may end twice."""
    result = trainer.train(folder, shards=folder.with_name("shards"), steps=steps)
    assert {row.step for row in read_rows(folder / "speed.csv")} >= {steps}
    folder.with_suffix(".digest").write_text(trainer.digest(result))


def in_child(work: Callable[[], None]) -> int:
    """Forks a child that does the work; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(1)


def ended_by_itself(child: int) -> bool:
    """Waits for a child; False where it was killed.

    Raises:
        RuntimeError: it failed.
    """
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, KILLED, -signal.SIGKILL):
        raise RuntimeError(f"a run ended with {status}")
    return status == 0


def at_random_times(folder: Path, kills: int) -> list[str]:
    """Runs are killed until there were so many kills; each is started again until it has come to its end.

    A run that is killed again and again is given more and more time, so that a busy machine ends it too.
    """
    draws, digests, done = random.Random(SEED), [], 0
    while done < kills:
        run, longest = folder / f"run-{len(digests)}", 0.2
        while True:
            child = in_child(lambda run=run: train(run))
            if done < kills:
                time.sleep(draws.uniform(0.0, longest))
                os.kill(child, signal.SIGKILL)
            if ended_by_itself(child):
                break
            done, longest = done + 1, longest * 1.1
        digests.append(run.with_suffix(".digest").read_text())
    return digests


def at_calls(folder: Path, every: int) -> list[str]:
    """A short run is killed at a call of each number, then started again."""

    def dying(run: Path, number: int) -> None:
        checkpoint.save_file = written_by_python
        with broken_disk(kill_at(number)):
            train(run, steps=trainer.SHORT)

    number, digests = 1, []
    while True:
        run = folder / f"call-{number}"
        if ended_by_itself(in_child(lambda run=run, number=number: dying(run, number))):
            return digests
        assert ended_by_itself(in_child(lambda run=run: train(run, steps=trainer.SHORT)))
        digests.append(run.with_suffix(".digest").read_text())
        number += every


if __name__ == "__main__":
    how, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    trainer.prepare(folder)
    digests = at_random_times(folder, number) if how == "times" else at_calls(folder, number)
    tried = number if how == "times" else len(digests)
    print(json.dumps({"tried": tried, "digests": digests}))  # noqa: T201
