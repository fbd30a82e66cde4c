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
"""Names the one size and model, a line each, that a child process measures."""
MEGABYTE = 1e6
KILOBYTE = 1024


def measure(names: Sequence[str] = tuple(sizes())) -> str:
    """The table of these sizes."""
    rows = []
    for name in names:
        found = {builder: _in_a_child(name, builder) for builder in BUILDERS}
        base = found[X_TRANSFORMERS]
        for builder, peak in found.items():
            told = f"{peak / MEGABYTE:,.0f}" if isinstance(peak, float) else peak
            known = isinstance(peak, float) and isinstance(base, float)
            rows.append([name, builder, told, times(float(peak) / float(base)) if known else "-"])
    return table(["size", "one step", "MB at most", "of x-transformers"], rows, words=2)


def peak_bytes(size: Size, builder: str) -> float:
    """How far the resident memory of this process grows over two steps; bytes.

    Raises:
        AbsentError: it cannot be measured here.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    except OSError:
        raise AbsentError("needs Linux's /proc") from None
    before = _peak()
    learner: Learner = BUILDERS[builder](size, CPU)
    step = take_step(learner, size, CPU)
    for _ in range(2):
        step()
    return _peak() - before


def _peak() -> float:
    """This process's largest resident memory since the peak began anew, bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (found,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return float(found) * KILOBYTE


def _in_a_child(size: str, builder: str) -> float | str:
    """What a process of its own measured, or why it could not."""
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
