"""Do the processors of two makers train to the same bits, and what does that cost?

    python -m benchmarks.portable      training steps of the demo's model, products by MKL and by OpenBLAS

With the pinned instruction set (`coma_gen.determinism`) and one thread, everything that torch computes for a
training step has the same bits on Intel and AMD, except what it leaves to MKL: matrix products, and `exp` and
`log` of whole tensors. MKL chooses that code by the maker of the processor. This benchmark replaces these
kernels, in a process of its own, with numpy's, whose OpenBLAS is told which code to use. The digest of the
weights after a few steps must then be `WEIGHTS` on every x86-64 processor with AVX2; that of MKL is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coma_gen.determinism import pin_cpu
from coma_gen.workspace.verify import read_vendor

WEIGHTS = "ed388576d67513a8"
"""First 16 digits of the SHA-256 of the demo's model after `DIGEST_STEPS` steps, as printed on an AMD EPYC
(Zen 5) and on the Intel Haswell that qemu-user 7.2 emulates.
"""
DIGEST_STEPS = 4
VOCABULARY, WINDOWS = 328, 4
LIBRARIES = ("mkl", "openblas")


def replace_kernels() -> None:
    """Replaces torch's CPU kernels of products, exp and log with numpy's, in this process."""
    import numpy as np
    import torch
    from torch.library import Library

    def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.asarray(np.matmul(a.detach().numpy(), b.detach().numpy())))

    def multiply_into(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        return out.copy_(multiply(a, b))

    def add(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
        product = multiply(a, b)
        product = product.mul_(alpha) if alpha != 1 else product
        return product.add_(c, alpha=beta) if beta else product

    def add_in_place(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor, **factors: float) -> torch.Tensor:
        return c.copy_(add(c, a, b, **factors))

    def add_into(c: torch.Tensor, a: Any, b: Any, *, out: torch.Tensor, **factors: float) -> torch.Tensor:
        return out.copy_(add(c, a, b, **factors))

    kernels: dict[str, Callable[..., torch.Tensor]] = {
        "exp": lambda x: torch.from_numpy(np.exp(x.detach().numpy())),
        "log": lambda x: torch.from_numpy(np.log(x.detach().numpy())),
        "dot": multiply,
    }
    for name, with_sum in (("mm", "addmm"), ("bmm", "baddbmm"), ("mv", "addmv")):
        kernels |= {name: multiply, f"{name}.out": multiply_into}
        kernels |= {with_sum: add, f"{with_sum}_": add_in_place, f"{with_sum}.out": add_into}
    library = Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for name, kernel in kernels.items():
        _register(library, name, kernel)
    _LIBRARIES.append(library)


_LIBRARIES: list[Any] = []
"""Keeps the replaced kernels registered: torch drops them with the last reference to their library."""


def _register(library: Any, name: str, kernel: Callable[..., Any]) -> None:
    """Replaces one CPU kernel for float32 and float64; other types keep torch's own."""
    import torch
    from torch.library import get_kernel

    original = get_kernel(f"aten::{name}", "CPU")

    def dispatch(keys: Any, *arguments: Any, **options: Any) -> Any:
        if arguments[0].dtype in (torch.float32, torch.float64):
            return kernel(*arguments, **options)
        return original.call_boxed(keys, *arguments, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of each kernel that is replaced
        library.impl(name, dispatch, "CPU", with_keyset=True, allow_override=True)


def train_steps(root: Path, steps: int) -> tuple[float, str]:
    """CPU milliseconds of a step of the demo's model, and its weights' digest after `DIGEST_STEPS`."""
    import torch

    from coma_gen.model.conformer import Conformer
    from coma_gen.params.load import load_params
    from coma_gen.training.likelihood import nll_sum
    from coma_gen.training.optimizer import build_optimizer

    params = load_params(root / "params.yaml")
    torch.set_num_threads(1)
    model = Conformer(params=params.model, vocab_size=VOCABULARY, seed=0)
    optimizer = build_optimizer(model, params.train)
    generator = torch.Generator().manual_seed(1)
    times, digest = [], ""
    for step in range(1, DIGEST_STEPS + steps + 1):
        ids = torch.randint(0, VOCABULARY, (WINDOWS, params.train.seq_len + 1), generator=generator)
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        nll = nll_sum(model, ids[:, :-1], ids[:, 1:], bf16=False) / ids[:, 1:].numel()
        nll.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        times.append(time.process_time() - start)
        if step == DIGEST_STEPS:
            weights = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
            digest = hashlib.sha256(weights).hexdigest()[:16]
    return 1000 * statistics.median(times[DIGEST_STEPS:] or times), digest


def measure(library: str, steps: int) -> tuple[float, str]:
    """`train_steps` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.portable", "--steps", str(steps), "--child", library]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    milliseconds, digest = json.loads(done.stdout)
    return float(milliseconds), str(digest)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table; ends with status 1 where the portable digest is another one."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.portable",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each process (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each library (default: 3)")
    parser.add_argument("--child", choices=LIBRARIES, help=argparse.SUPPRESS)
    typed = parser.parse_args(arguments)
    root = Path(__file__).resolve().parents[1]
    if typed.child:
        pin_cpu(pin=True, threads=1)
        if typed.child == "openblas":
            replace_kernels()
        print(json.dumps(train_steps(root, typed.steps)))
        return
    got = [{name: measure(name, typed.steps) for name in LIBRARIES} for _ in range(typed.rounds)]
    print(f"{read_vendor()}, {os.uname().machine}, one thread, {typed.rounds} rounds of {typed.steps} steps")
    print("| products by | CPU ms a step | of MKL's | weights |\n|---|---|---|---|")
    for name in LIBRARIES:
        milliseconds = min(one[name][0] for one in got)
        ratio = statistics.median(one[name][0] / one["mkl"][0] for one in got)
        print(f"| {name} | {milliseconds:.1f} | {ratio:.2f}x | `{got[0][name][1]}` |")
    found = {one["openblas"][1] for one in got}
    if found != {WEIGHTS}:
        sys.exit(f"openblas: the weights must be {WEIGHTS}, got {', '.join(sorted(found))}")
    print(f"openblas: the weights are {WEIGHTS}, as on an AMD EPYC (Zen 5) and an emulated Intel Haswell")


if __name__ == "__main__":
    main()
