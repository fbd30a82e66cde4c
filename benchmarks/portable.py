"""Are results bit-identical on processors of different vendors, and what does that cost?

    python -m benchmarks.portable      the demo's model, with MKL and with the portable kernels

With the pinned instruction set (`coma_gen.core.seeding`) and one thread, everything that torch computes here
is bit-identical on Intel and AMD, except for calls of MKL, which selects its code path by vendor
(`coma_gen.model.portable`). The model takes a few training steps, then scores tokens in chunks, and decodes
some one by one. The digests of its weights and of both kinds of logits must equal `DIGESTS` on every x86-64
processor with AVX2; with MKL they do not.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from coma_gen.core.seeding import pin_cpu
from coma_gen.workspace.verify import read_vendor

DIGESTS = {"weights": "dfe28d885a83272a", "scored": "61c1e8ee612d931d", "decoded": "9667f77939c61c17"}
"""First 16 digits of the SHA-256 of the weights after `DIGEST_STEPS` steps and of logits, as printed on an
AMD EPYC (Zen 5) and on the Intel Haswell that qemu-user 7.2 emulates.
"""
DIGEST_STEPS = 4
VOCABULARY, WINDOWS = 328, 4
LIBRARIES = ("mkl", "numpy")


def _digest(tensors: Any) -> str:
    content = b"".join(tensor.detach().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()[:16]


def run_model(root: Path, library: str, steps: int) -> dict[str, Any]:
    """Measures CPU ms of a training step, of scoring 128 tokens and of decoding one; computes digests."""
    import torch

    from coma_gen.config.load import load_params
    from coma_gen.generation.token_decoder import TokenDecoder
    from coma_gen.model.conformer import Conformer
    from coma_gen.model.device import deterministic
    from coma_gen.training.loss import sum_nll
    from coma_gen.training.optimizer import build_optimizers

    params = load_params(root / "params.yaml")
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {"train": [], "score": [], "decode": []}
    got: dict[str, Any] = {}

    def draw(step: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, VOCABULARY, shape, generator=torch.Generator().manual_seed(step))

    with nullcontext() if library == "mkl" else deterministic(1):
        model = Conformer(params=params.model, vocab_size=VOCABULARY, seed=0)
        optimizers = build_optimizers(model, params.train)
        for step in range(1, DIGEST_STEPS + steps + 1):
            ids = draw(step, WINDOWS, params.train.seq_len + 1)
            start = time.process_time()
            model.zero_grad(set_to_none=True)
            nll = sum_nll(model, ids[:, :-1], ids[:, 1:], bf16=False) / ids[:, 1:].numel()
            nll.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            times["train"].append(time.process_time() - start)
            if step == DIGEST_STEPS:
                got["weights"] = _digest(model.parameters())
                scored = copy.deepcopy(model).eval()
        with torch.inference_mode():
            for name, tokens in (("score", 128), ("decode", 1)):
                state, logits = scored.init_cache(2), []
                read = TokenDecoder(scored) if tokens == 1 else scored
                for step in range(DIGEST_STEPS + steps):
                    ids = draw(step, 2, tokens)
                    start = time.process_time()
                    logits.append(read(ids, state))
                    times[name].append(time.process_time() - start)
                got[f"{name}d"] = _digest(logits[:DIGEST_STEPS])
    timed = {name: 1000 * statistics.median(of[DIGEST_STEPS:] or of) for name, of in times.items()}
    return got | timed


def measure(library: str, steps: int) -> dict[str, Any]:
    """Runs `run_model` in a separate process."""
    command = [sys.executable, "-m", "benchmarks.portable", "--steps", str(steps), "--child", library]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table; exits with status 1 if a digest of the portable kernels differs from `DIGESTS`."""
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
        print(json.dumps(run_model(root, typed.child, typed.steps)))
        return
    got = [{name: measure(name, typed.steps) for name in LIBRARIES} for _ in range(typed.rounds)]
    print(f"{read_vendor()}, {os.uname().machine}, one thread, {typed.rounds} rounds of {typed.steps} steps")
    print("CPU ms of a training step, of scoring 128 tokens of two pieces, and of decoding one; of MKL's")
    print("| products by | train | | score | | decode | | weights | scored | decoded |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in LIBRARIES:
        cells = []
        for work in ("train", "score", "decode"):
            cells.append(f"{min(one[name][work] for one in got):.2f}")
            cells.append(f"{statistics.median(one[name][work] / one['mkl'][work] for one in got):.2f}x")
        cells += [f"`{got[0][name][of]}`" for of in DIGESTS]
        print(f"| {name} | {' | '.join(cells)} |")
    for one in got:
        found = {of: one["numpy"][of] for of in DIGESTS}
        if found != DIGESTS:
            sys.exit(f"numpy: the digests must be {DIGESTS}, got {found}")
    print("numpy: the digests are those of an AMD EPYC (Zen 5)")


if __name__ == "__main__":
    main()
