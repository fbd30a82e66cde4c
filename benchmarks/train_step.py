"""How long does a training step take, compared with the reference model and plain transformers of equal size?

Every row is a complete step of the trainer on the same batch: zero_grad, forward, cross-entropy, backward,
clipping, fused AdamW. `reference` is a straightforward implementation of the same function (verified by a
test), see reference.py; the number of parameters of the peers agrees within one percent. The floor is the
minimum arithmetic (linear layers and exact attention bands, forward and backward) at the best rate of matrix
products, measured between the steps. Our bf16 rows are compared with the float32 reference. "Compiled" is
`train.compile: true`; the compile time from an empty cache is given below the table (in the short form, for
the larger size only).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

import torch

from benchmarks.learners import REFERENCE, X_TRANSFORMERS, Learner, build_learners, take_step
from benchmarks.machine import best_rate, product_probes
from benchmarks.peers import unique_parameters
from benchmarks.sizes import Size, sizes, step_flops
from benchmarks.timing import (
    Timing,
    Variant,
    alternate,
    heading,
    milliseconds,
    parse_settings,
    percent,
    table,
    times,
)

PACKAGES = ("local-attention", "x-transformers", "transformers")


def measure(size: Size, *, device: torch.device, rounds: int, compiling: bool = True) -> str:
    """Computes the table of one size.

    Args:
        size: The model size.
        device: Device of the models.
        rounds: Measured steps of each variant.
        compiling: Whether to include the compiled modes.
    """
    learners, absent = build_learners(size, device, compiling=compiling)
    steps = {name: Variant(take_step(learner, size, device)) for name, learner in learners.items()}
    probes = {
        dtype: product_probes(rows=size.batch * size.tokens, dim=size.model.dim, dtype=dtype, device=device)
        for dtype in {torch.bfloat16 if learner.bf16 else torch.float32 for learner in learners.values()}
    }
    speeds = {name: probe.variant for group in probes.values() for name, probe in group.items()}
    timings = alternate(steps | speeds, rounds=rounds, device=device)
    rows = [row(name, learner, timings, size) for name, learner in learners.items()]
    rows += [[name, reason, *["-"] * 5] for name, reason in absent.items()]
    for dtype in sorted(probes, key=str, reverse=True):
        rate = best_rate(probes[dtype], timings)
        seconds, kind = step_flops(size) / rate, "bf16" if dtype is torch.bfloat16 else "fp32"
        name = f"floor, {kind}: {step_flops(size) / 1e9:.0f} GFLOP at {rate / 1e9:,.0f} GFLOP/s"
        rows.append([name, "-", *figures(seconds, "-", size, timings)])
    head = ["one step", "parameters", "ms", "spread", "tokens/s", "faster than reference"]
    notes = [
        f"{name}: {learner.first_step_seconds:.0f} s of wall time for the first step, which compiles."
        for name, learner in learners.items()
        if learner.first_step_seconds is not None
    ]
    return "\n\n".join([table([*head, "than x-transformers"], rows), *notes])


def row(name: str, learner: Learner, timings: dict[str, Timing], size: Size) -> list[str]:
    """Returns the row of one variant."""
    timing = timings[name]
    numbers = figures(timing.median, percent(timing.spread), size, timings)
    return [name, f"{unique_parameters(learner.model):,}", *numbers]


def figures(seconds: float, spread: str, size: Size, timings: dict[str, Timing]) -> list[str]:
    """Formats time, spread, speed, and the speedup over the reference and over x-transformers."""
    speed = f"{size.batch * size.tokens / seconds:,.0f}"
    bases = [timings.get(name) for name in (REFERENCE, X_TRANSFORMERS)]
    ratios = ["-" if base is None else times(base.median / seconds) for base in bases]
    return [milliseconds(seconds), spread, speed, *ratios]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each size."""
    settings = parse_settings("benchmarks.train_step", str(__doc__), arguments)
    print(heading("Training step", settings.device, PACKAGES))
    for name, size in sizes().items():
        rounds = (2 if name == "36M" else 3) if settings.short else 7
        print(f"{name}: {size.batch} x {size.tokens} tokens, {rounds} rounds\n")
        with tempfile.TemporaryDirectory(prefix="benchmark-compiled-") as cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            compiling = not settings.short or name == "36M"
            text = measure(size, device=settings.device, rounds=rounds, compiling=compiling)
            print(text, end="\n\n", flush=True)


if __name__ == "__main__":
    main()
