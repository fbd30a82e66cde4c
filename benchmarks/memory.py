"""How much memory does a training step need, compared with the reference model and plain transformers?

Each model takes two steps in a separate process. The result is the peak resident memory of that process minus
its memory before the model was built: weights, gradients, optimizer state and saved activations. Linux only,
from /proc; CPU only, since GPU memory is managed by the allocator of torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.learners import PEERS, REFERENCE, X_TRANSFORMERS, Learner, ours, peer, plain, take_step
from benchmarks.peers import AbsentError
from benchmarks.sizes import Size, sizes
from benchmarks.timing import heading, parse_settings, table, times

CPU = torch.device("cpu")
BUILDERS: dict[str, Callable[[Size, torch.device], Learner]] = {
    REFERENCE: plain,
    "ours, fp32": ours,
    "ours, bf16": partial(ours, bf16=True),
    **{name: partial(peer, build) for name, build in PEERS.items()},
}
ONE = "COMA_BENCHMARK_MEMORY"
"""Environment variable with the size and the model, one per line, that a child process measures."""
MEGABYTE = 1e6
KILOBYTE = 1024


def measure(names: Sequence[str] = tuple(sizes())) -> str:
    """Computes the table of these sizes."""
    rows = []
    for name in names:
        found = {builder: _measure_in_child(name, builder) for builder in BUILDERS}
        base = found[X_TRANSFORMERS]
        for builder, peak in found.items():
            cell = f"{peak / MEGABYTE:,.0f}" if isinstance(peak, float) else peak
            known = isinstance(peak, float) and isinstance(base, float)
            rows.append([name, builder, cell, times(float(peak) / float(base)) if known else "-"])
    return table(["size", "one step", "MB at most", "of x-transformers"], rows, words=2)


def peak_bytes(size: Size, builder: str) -> float:
    """Measures the growth of this process's peak resident memory over two steps, in bytes.

    Raises:
        AbsentError: It cannot be measured on this system.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    except OSError:
        raise AbsentError("needs Linux's /proc") from None
    before = _peak()
    learner: Learner = BUILDERS[builder](size, CPU)
    step = take_step(learner, size, CPU)
    for _ in range(2):
        step()
    return _peak() - before


def _peak() -> float:
    """Reads this process's peak resident memory since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (found,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return float(found) * KILOBYTE


def _measure_in_child(size: str, builder: str) -> float | str:
    """Measures in a child process; returns the bytes, or the reason why it could not."""
    command = [sys.executable, "-m", "benchmarks.memory"]
    environment = os.environ | {ONE: f"{size}\n{builder}"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    text = done.stdout.strip()
    return float(text) if text.replace(".", "").isdigit() else text


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table; in a child process, one figure."""
    if ONE in os.environ:
        torch.set_num_threads(1)
        size, builder = os.environ[ONE].split("\n")
        try:
            print(peak_bytes(sizes()[size], builder))
        except AbsentError as reason:
            print(reason)
        return
    settings = parse_settings("benchmarks.memory", str(__doc__), arguments)
    print(heading("Memory of a training step", CPU, ("x-transformers", "local-attention", "transformers")))
    print(measure(("36M",) if settings.short else tuple(sizes())))


if __name__ == "__main__":
    main()
