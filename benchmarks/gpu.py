"""Does a GPU compute the same as a CPU, and how fast? A quick check of a machine with a GPU.

    python -m benchmarks.gpu smoke      device against CPU, compiled against eager, resumed, bit by bit
    python -m benchmarks.gpu speed      a training step in each mode and of other packages; decoding
    DEV=cpu python -m benchmarks.gpu smoke --small      the same on a CPU, at a meaningless size

The size is that of presets/maestro.yaml, 16 x 2048 tokens. The models of other packages have as many
parameters within one percent, and are compiled in the same way. Share of peak: the arithmetic of
benchmarks/sizes.py relative to the best rate of large bfloat16 matrix products, measured here. Needs PyYAML,
pydantic, numpy, safetensors, filelock and tqdm besides torch.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from benchmarks.peers import AbsentError, gpt2_logits, seeded, unique_parameters, x_transformer
from benchmarks.sizes import Size, model_params, step_flops, train_params
from benchmarks.timing import heading
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.generation.token_decoder import TokenDecoder
from coma_gen.model.compile import compile_model
from coma_gen.model.conformer import Conformer
from coma_gen.model.cuda_graphs import record_cuda_graph
from coma_gen.model.device import deterministic, reseed
from coma_gen.training.gradients import add_gradient, clip_gradient
from coma_gen.training.optimizer import build_optimizers
from coma_gen.training.recorded import RecordedGradient

PRESET = Path(__file__).resolve().parents[1] / "presets" / "maestro.yaml"
CPU = torch.device("cpu")
VOCABULARY, PEER_LAYERS, PEERS = 434, 12, {"x-transformers": x_transformer, "gpt2": gpt2_logits}
LARGE_SIDE, SMALL_SIDE = 8192, 128
ROWS, SMALL_ROWS = (1, 32, 256), (1, 2)
Passes = Callable[[Tensor, Tensor], Tensor]


def maestro_size(*, small: bool) -> Size:
    """Returns the measured size, with peers of an equal number of parameters."""
    shape = {key: tuple(v) if isinstance(v, list) else v for key, v in read_yaml(PRESET)["model"].items()}
    dry = {key: 0.0 for key in shape if key.endswith("_dropout")}
    tiny = {
        "dim": 16,
        "num_layers": 1,
        "num_heads": 2,
        "head_dim": 8,
        "window_sizes": (4, 8),
        "kernel_size": 5,
    }
    model = model_params(**(shape | dry | (tiny if small else {})))
    batch, tokens, layers = (2, 24, 1) if small else (16, 2048, PEER_LAYERS)
    plain = Size(
        "maestro", model, VOCABULARY, batch=batch, tokens=tokens, peer_layers=layers, peer_ff_mults={}
    )
    target = unique_parameters(Conformer(params=model, vocab_size=VOCABULARY, seed=0))
    mults = {}
    for name, build in PEERS.items():
        try:
            low, high = (unique_parameters(build(_with_mults(plain, {name: mult}))) for mult in (2.0, 4.0))
            inner = round(model.dim * (2.0 + 2.0 * (target - low) / (high - low)))
            mults[name] = max(1, inner) / model.dim
        except AbsentError:
            continue
    return _with_mults(plain, mults)


def _with_mults(size: Size, mults: dict[str, float]) -> Size:
    return Size(size.name, size.model, size.vocab_size, size.batch, size.tokens, size.peer_layers, mults)


def windows(size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Samples a batch of random tokens, the same on every device."""
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(size.vocab_size, (size.batch, size.tokens + 1), generator=draws).to(device)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def ours(
    size: Size, device: torch.device, *, dropout: float = 0.0, streams: torch.dtype | None = None
) -> Conformer:
    """Builds our model in training mode, with the same weights at every call."""
    shape = size.model.model_copy(update={"ff_dropout": dropout, "conv_dropout": dropout})
    model = Conformer(params=shape, vocab_size=size.vocab_size, seed=0).to(device).train()
    model.stream_dtype = streams
    return model


def compile_ours(model: Conformer, size: Size, device: torch.device, *, bf16: bool = True) -> Conformer:
    """Compiles the model as by `train.compile: true`.

    Raises:
        AbsentError: torch cannot compile on this machine.
    """
    warm_up = partial(add_gradient, model, *windows(size, device), bf16=bf16)
    if not compile_model(model, length=size.tokens, device=device, warm_up=warm_up):
        raise AbsentError("torch cannot compile")
    return model


def record_passes(model: nn.Module, size: Size, device: torch.device, *, bf16: bool = True) -> Passes:
    """Records forward and backward pass in a CUDA graph, as by `train.cuda_graphs: true`.

    Raises:
        AbsentError: The device is not a CUDA device.
    """
    if device.type != "cuda":
        raise AbsentError("no CUDA device")
    shape, add = (size.batch, size.tokens), partial(add_gradient, model, bf16=bf16)
    return RecordedGradient(add, shape=shape, pad_id=0, device=device, record=record_cuda_graph)


def compute_gradients(model: nn.Module, passes: Passes, batch: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Computes the summed nll and all gradients; returns them on the CPU."""
    reseed(batch[0].device, 1)
    model.zero_grad(set_to_none=not isinstance(passes, RecordedGradient))
    nll = passes(*batch)
    return [nll.cpu().clone(), *(p.grad.cpu().clone() for p in model.parameters() if p.grad is not None)]


def distance(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Computes the relative distance (L2) of all gradients together."""
    squares = sum(
        float((a.double() - b.double()).square().sum()) for a, b in zip(actual[1:], expected[1:], strict=True)
    )
    return float((squares / sum(float(b.double().square().sum()) for b in expected[1:])) ** 0.5)


def bit_difference(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Returns 0 if all tensors are bit-identical, else 1."""
    return float(not all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True)))


def smoke(size: Size, device: torch.device) -> Iterator[tuple[str, float, float]]:
    """Yields the name of each check, its difference, and the tolerance."""
    batch, (input_ids, targets) = windows(size, device), windows(size, CPU)
    few = (input_ids[:2], targets[:2])
    quiet, reference = ours(size, device), ours(size, CPU)
    expected = compute_gradients(reference, partial(add_gradient, reference, bf16=False), few)
    moved = (few[0].to(device), few[1].to(device))
    for name, bf16, streams, limit in (
        ("float32", False, None, 1e-3),
        ("bfloat16", True, None, 5e-2),
        ("bfloat16, streams too,", True, torch.bfloat16, 1e-1),
    ):
        quiet.stream_dtype = streams
        actual = compute_gradients(quiet, partial(add_gradient, quiet, bf16=bf16), moved)
        yield f"device in {name} against CPU in float32", distance(actual, expected), limit
    quiet.stream_dtype = None
    yield "decoded token by token against one pass, device", _decoding_distance(quiet, moved[0]), 1e-3
    try:
        yield "decoded with CUDA graphs against without, bits", _replay_difference(quiet, moved[0]), 0.0
    except AbsentError as reason:
        print(reason, flush=True)
    plain, model = ours(size, device, dropout=0.1), ours(size, device, dropout=0.1)
    eager = compute_gradients(plain, partial(add_gradient, plain, bf16=True), batch)
    passes: Passes = partial(add_gradient, model, bf16=True)
    try:
        compile_ours(model, size, device)
        fast = compute_gradients(model, passes, batch)
        yield "compiled against eager, bfloat16, dropout", distance(fast, eager), 5e-2
    except AbsentError as reason:
        print(reason, flush=True)
        fast = compute_gradients(model, passes, batch)
    yield "the same step twice, bits", bit_difference(compute_gradients(model, passes, batch), fast), 0.0
    yield "resumed after three steps, bits", _resume_difference(model, passes, batch), 0.0
    try:
        fast = compute_gradients(model, passes, batch)
        graph = record_passes(model, size, device)
        yield (
            "with a CUDA graph against without, bits",
            bit_difference(compute_gradients(model, graph, batch), fast),
            0.0,
        )
    except AbsentError as reason:
        print(reason, flush=True)


def _decoding_distance(model: Conformer, ids: Tensor) -> float:
    """Computes the relative distance of logits decoded token by token to those of one pass."""
    model.eval()
    with torch.inference_mode():
        ids = ids[:, :300]
        whole, state, half = model(ids), model.init_cache(len(ids)), ids.shape[1] // 2
        model(ids[:, :half], state)
        steps = [model(ids[:, at : at + 1], state) for at in range(half, ids.shape[1])]
        apart = (torch.cat(steps, dim=1) - whole[:, half:]).norm() / whole[:, half:].norm()
    model.train()
    return float(apart)


def _replay_difference(model: Conformer, ids: Tensor) -> float:
    """Returns 0 if decoding with CUDA graphs is bit-identical to eager decoding and every step was recorded.

    Raises:
        AbsentError: The device is not a CUDA device.
    """
    replayed, plain = TokenDecoder(model), TokenDecoder(model)
    if replayed.recorded is None:
        raise AbsentError("no CUDA device")
    plain.recorded = None
    with torch.inference_mode():
        state, other, past = (
            model.init_cache(len(ids)),
            model.init_cache(len(ids)),
            max(model.params.window_sizes),
        )
        for each in (state, other):
            model.eval()(ids[:, :past], each)
        same = all(
            torch.equal(replayed(token, state), plain(token, other))
            for token in torch.split(ids[:, : 3 * model.cache_capacity], 1, dim=1)
        )
    model.train()
    return float(not same or replayed.recorded.count < model.cache_capacity)


def make_step(
    model: nn.Module,
    passes: Passes,
    batch: tuple[Tensor, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> Callable[[], Tensor]:
    """Returns a function that takes one training step and returns its nll, on the device."""
    learning, keeps = list(model.parameters()), isinstance(passes, RecordedGradient)

    def step() -> Tensor:
        model.zero_grad(set_to_none=not keeps)
        nll = passes(*batch)
        clip_gradient(learning, 1.0, divisor=batch[1].numel())
        for optimizer in optimizers:
            optimizer.step()
        return nll

    return step


def _resume_difference(model: Conformer, passes: Passes, batch: tuple[Tensor, Tensor]) -> float:
    """Compares six steps with dropout with a run that was resumed after three; see `bit_difference`."""

    def run(optimizers: Any, first: int) -> list[Tensor]:
        step = make_step(model, passes, batch, optimizers)
        for number in range(first, first + 3):
            reseed(batch[0].device, number)
            step()
        return [weight.detach().cpu().clone() for weight in model.parameters()]

    optimizers = build_optimizers(model, train_params())
    run(optimizers, 0)
    weights = copy.deepcopy(model.state_dict())
    states = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    straight = run(optimizers, 3)
    model.load_state_dict(weights)
    again = build_optimizers(model, train_params())
    for optimizer, state in zip(again, states, strict=True):
        optimizer.load_state_dict(state)
    return bit_difference(run(again, 3), straight)


def wait(device: torch.device) -> None:
    """Waits until the GPU is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_runs(work: Callable[[], object], count: int, device: torch.device) -> tuple[float, float]:
    """Measures mean wall seconds and CPU seconds per run over `count` runs."""
    for _ in range(3):
        work()
    wait(device)
    clock, host = time.perf_counter(), time.process_time()
    for _ in range(count):
        work()
    host = time.process_time() - host
    wait(device)
    return (time.perf_counter() - clock) / count, host / count


def count_launches(work: Callable[[], object], device: torch.device) -> str:
    """Counts the kernels and graphs that the host launches in one run."""
    if device.type != "cuda":
        return "-"
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        work()
        wait(device)
    return str(sum(event.count for event in profile.key_averages() if "Launch" in event.key))


def peer(name: str, size: Size, device: torch.device) -> tuple[nn.Module, Passes]:
    """Builds another package's model, compiled.

    Raises:
        AbsentError: The package is not installed.
    """
    model = seeded(lambda: PEERS[name](size)).to(device).train()
    if device.type == "cuda":
        model.compile(dynamic=False)
    return model, partial(add_gradient, model, bf16=True)


def training_rows(size: Size, device: torch.device, *, rounds: int, side: int) -> Iterator[list[str]]:
    """Yields a row per mode; for a mode that cannot run, the row gives the reason."""
    square = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    peak = 2 * side**3 / time_runs(lambda: square @ square, 5, device)[0]

    def mode(
        *, bf16: bool, fuse: bool, graph: bool, streams: torch.dtype | None = None
    ) -> tuple[nn.Module, Passes]:
        model = ours(size, device, streams=streams)
        passes: Passes = partial(add_gradient, model, bf16=bf16)
        if fuse:
            compile_ours(model, size, device, bf16=bf16)
        return model, record_passes(model, size, device, bf16=bf16) if graph else passes

    modes: dict[str, Callable[[], tuple[nn.Module, Passes]]] = {
        "ours, bf16, compiled": partial(mode, bf16=True, fuse=True, graph=False),
        "ours, bf16, compiled, CUDA graph": partial(mode, bf16=True, fuse=True, graph=True),
        "ours, bf16 with streams, compiled, CUDA graph": partial(
            mode, bf16=True, fuse=True, graph=True, streams=torch.bfloat16
        ),
        "ours, bf16 with streams, compiled": partial(
            mode, bf16=True, fuse=True, graph=False, streams=torch.bfloat16
        ),
        "ours, bf16": partial(mode, bf16=True, fuse=False, graph=False),
        "ours, bf16, CUDA graph": partial(mode, bf16=True, fuse=False, graph=True),
        "ours, fp32": partial(mode, bf16=False, fuse=False, graph=False),
        **{f"{name}, bf16": partial(peer, name, size, device) for name in PEERS},
    }
    for name, make in modes.items():
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            yield [name, *_measure_training(*make(), size, device, rounds, peak)]
        except Exception as reason:  # one mode must not prevent the measurement of the others
            yield [name, f"{type(reason).__name__}: {reason}".splitlines()[0][:90], *["-"] * 6]


def _measure_training(
    model: nn.Module, passes: Passes, size: Size, device: torch.device, rounds: int, peak: float
) -> list[str]:
    is_ours = isinstance(model, Conformer)
    optimizers = (
        build_optimizers(model, train_params()) if is_ours else [AdamW(model.parameters(), fused=True)]
    )
    step = make_step(model, passes, windows(size, device), optimizers)
    seconds, host = time_runs(step, rounds, device)
    memory = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}" if device.type == "cuda" else "-"
    share = f"{step_flops(size) / seconds / peak:.1%}" if is_ours else "-"
    speed = f"{size.batch * size.tokens / seconds:,.0f}"
    figures = [
        f"{1e3 * seconds:.1f}",
        f"{1e3 * host:.1f}",
        speed,
        share,
        count_launches(step, device),
        memory,
    ]
    return [f"{unique_parameters(model):,}", *figures]


def decoding_rows(size: Size, device: torch.device, rows: Sequence[int], tokens: int) -> Iterator[list[str]]:
    """Yields decoding speed after a prompt of the largest window, for several batch sizes."""
    model = ours(size, device).eval()
    for count in rows:
        for mode in ("eager", "CUDA graphs"):
            step = TokenDecoder(model)
            if mode == "eager":
                step.recorded = None
            elif step.recorded is None:
                yield [f"{count}, {mode}", "AbsentError: no CUDA device", "-", "-"]
                continue
            with torch.inference_mode():
                state = model.init_cache(count)
                ids = torch.ones(count, max(size.model.window_sizes), dtype=torch.int64, device=device)
                model(ids, state)
                for _ in range(2 * model.cache_capacity if step.recorded else 0):
                    step(ids[:, :1], state)
                seconds, host = time_runs(partial(step, ids[:, :1], state), tokens, device)
            figures = [f"{1e3 * seconds:.2f}", f"{1e3 * host:.2f}", f"{count / seconds:,.0f}"]
            yield [f"{count}, {mode}", *figures]


def show(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a Markdown table row by row, so that an interrupted run leaves its finished rows."""
    for row in (head, ["---", *["--:"] * (len(head) - 1)]):
        print(f"| {' | '.join(row)} |", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one part; smoke exits with status 1 if a difference exceeds its tolerance."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=("smoke", "speed"))
    parser.add_argument("--small", action="store_true", help="tiny size, to try the script itself")
    parser.add_argument("--rounds", type=int, default=10, help="timed steps per mode (default: 10)")
    typed = parser.parse_args(arguments)
    device, size = torch.device(os.environ.get("DEV", "cuda")), maestro_size(small=typed.small)
    with deterministic(torch.get_num_threads(), device):
        if typed.part == "smoke":
            failed = 0
            for name, difference, limit in smoke(size, device):
                failed += difference > limit
                verdict = "FAILED" if difference > limit else "passed"
                print(
                    f"{verdict}: {name}: {difference:.2e}, at most {limit:g}",
                    flush=True,
                )
            sys.exit(1 if failed else 0)
        print(heading("On a GPU", device, ("x-transformers", "transformers")))
        print(f"{size.batch} x {size.tokens} tokens\n")
        side, rows = (SMALL_SIDE, SMALL_ROWS) if typed.small else (LARGE_SIDE, ROWS)
        head = ["rows decoded", "ms", "host ms", "tokens/s"]
        show(head, decoding_rows(size, device, rows, tokens=4 * typed.rounds))
        head = ["one step", "parameters", "ms", "host ms", "tokens/s", "of peak", "launches", "peak GiB"]
        show(head, training_rows(size, device, rounds=typed.rounds, side=side))


if __name__ == "__main__":
    main()
