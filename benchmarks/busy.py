"""How fast is training alone, beside a second training, and beside other load on every core?

    python -m benchmarks.busy          three ways to use two cores, in each of these situations

Threads of one process wait for each other by spinning, which occupies cores that other processes could use,
and the wait lasts as long as the other thread is preempted. Single-threaded processes synchronize only once
per step. Each training run takes steps of the demo's model on random tokens; throughput is counted in a fixed
interval after a warm-up of the same length for all. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coma_gen.core.cores import available_cores
from coma_gen.core.seeding import pin_cpu
from coma_gen.training.launch import is_rank, launch_ranks
from coma_gen.workspace.verify import read_vendor

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY, WINDOWS = 328, 4


class Layout(NamedTuple):
    """Number of processes, and of threads per process."""

    name: str
    processes: int
    threads: int


LAYOUTS = (
    Layout("1 process of 2 threads", 1, 2),
    Layout("1 process of 1 thread", 1, 1),
    Layout("2 processes of 1 thread (the default)", 2, 1),
)


def train(layout: Layout, first: float, last: float) -> None:
    """Trains as one rank until the time `last`; rank 0 prints the total tokens per second since `first`."""
    import numpy as np
    import torch

    from coma_gen.config.load import load_params
    from coma_gen.model.conformer import Conformer
    from coma_gen.model.device import deterministic
    from coma_gen.training.batches import Batch
    from coma_gen.training.distributed import init_distributed
    from coma_gen.training.gradients import accumulate_gradient, clip_gradient
    from coma_gen.training.optimizer import build_optimizers

    params = load_params(ROOT / "params.yaml")
    cpu = torch.device("cpu")
    with init_distributed() as ranks, deterministic(layout.threads):
        model = Conformer(params=params.model, vocab_size=VOCABULARY, seed=0)
        optimizers = build_optimizers(model, params.train)
        shared = ranks.wrap_model(model, cpu) if ranks.size > 1 else model
        dice = np.random.default_rng(ranks.rank)
        windows = WINDOWS // ranks.size
        steps, since, now = 0, 0.0, time.time()
        while now < last or not steps:
            ids = dice.integers(0, VOCABULARY, (windows, params.train.seq_len + 1))
            model.zero_grad(set_to_none=True)
            inputs, targets = (torch.from_numpy(part.copy()) for part in (ids[:, :-1], ids[:, 1:]))
            batch = Batch(inputs, targets, targets.numel())
            accumulate_gradient(shared, batch, micro_batches=1, seed=0, step=1, device=cpu, bf16=False)
            if ranks.size > 1:
                ranks.average(model.parameters())
            clip_gradient(list(model.parameters()), 1.0, divisor=windows * params.train.seq_len)
            for optimizer in optimizers:
                optimizer.step()
            (summed,) = ranks.sum_over_ranks(time.time())
            now = summed / ranks.size
            steps += bool(since)
            since = since or (now if now >= first else 0.0)
        if ranks.is_first:
            print(json.dumps(steps * WINDOWS * params.train.seq_len / (now - since)), flush=True)


def measure(layout: Layout, *, trainings: int, neighbors: int, start: float, seconds: float) -> list[float]:
    """Measures tokens per second of concurrent training runs, beside `neighbors` busy processes."""
    first = time.time() + start
    last = first + seconds
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbors)]
    command = [sys.executable, "-m", "benchmarks.busy", "--job", json.dumps([*layout, first, last])]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(trainings)]
    try:
        return [float(json.loads(job.communicate()[0])) for job in jobs]
    finally:
        everyone: list[subprocess.Popen[Any]] = [*spinning, *jobs]
        for process in everyone:
            process.kill()
            process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.busy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=15, help="measured interval (default: 15)")
    parser.add_argument("--start", type=float, default=20, help="warm-up before it (default: 20)")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    typed = parser.parse_args(arguments)
    if typed.job:
        *settings, first, last = json.loads(typed.job)
        layout = Layout(*settings)
        if "numpy" in sys.modules:
            sys.exit("numpy was imported before its threads were set")
        pin_cpu(pin=True, threads=layout.threads)
        if layout.processes > 1 and not is_rank():
            launch_ranks(
                [sys.executable, "-m", "benchmarks.busy", "--job", typed.job], processes=layout.processes
            )
        else:
            train(layout, first, last)
        return
    cores = available_cores()
    print(f"{read_vendor()}, {cores} cores; tokens per second of wall time")
    head = ["", "alone", "vs first row", "two at once, each", "sum vs alone", "busy neighbors", "vs alone"]
    print(f"| {' | '.join(head)} |")
    print("|---|---|---|---|---|---|---|")
    base = None
    for layout in LAYOUTS:
        (alone,) = measure(layout, trainings=1, neighbors=0, start=typed.start, seconds=typed.seconds)
        two = measure(layout, trainings=2, neighbors=0, start=typed.start, seconds=typed.seconds)
        (busy,) = measure(layout, trainings=1, neighbors=cores, start=typed.start, seconds=typed.seconds)
        base = base or alone
        each = " and ".join(f"{rate:,.0f}" for rate in two)
        ratios = (alone / base, sum(two) / alone, busy / alone)
        of_first, of_sum, of_busy = (f"{ratio:.2f}x" for ratio in ratios)
        print(f"| {layout.name} | {alone:,.0f} | {of_first} | {each} | {of_sum} | {busy:,.0f} | {of_busy} |")


if __name__ == "__main__":
    main()
