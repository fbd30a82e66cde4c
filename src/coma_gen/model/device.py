"""Device selection and settings for reproducible computation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.seeding import is_pinned
from coma_gen.model.portable import replace_kernels


def choose_device(name: str) -> torch.device:
    """Returns the device of that name.

    Args:
        name: cpu, cuda, mps, or auto (the first available of cuda, mps, cpu).

    Raises:
        UserError: If this machine has no such device.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, here in present.items() if here)
    if not present.get(name, False):
        found = ", ".join(kind for kind, here in present.items() if here)
        rule = f"must be a device that this machine has ({found}), or auto"
        raise UserError(
            Fault("runtime.device", rule, name, "set it to auto, or run on a machine that has one")
        )
    return torch.device(name)


BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Names in `torch.cpu.get_capabilities` on x86 and ARM."""


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has bfloat16 matrix products in hardware; other CPUs emulate them slowly."""
    return device.type != "cpu" or any(map(torch.cpu.get_capabilities().get, BF16_INSTRUCTIONS))


CPU = torch.device("cpu")
deterministic_settings: Any = torch.utils.deterministic


@contextmanager
def deterministic(threads: int, device: torch.device = CPU) -> Iterator[None]:
    """Enables deterministic algorithms with a fixed number of threads; restores the settings on exit.

    An operation without a deterministic implementation raises RuntimeError. Sums depend on the number of
    threads, so equal results need equal `threads`. With one thread on the CPU, in a process pinned by
    `pin_cpu`, matrix products are replaced by numpy's for the rest of the process, and attention uses the
    math backend, because the fused kernel calls MKL internally. With several threads they are not replaced,
    since the thread pools of OpenBLAS and OpenMP would compete.
    """
    threads_before = torch.get_num_threads()
    mode_before = torch.get_deterministic_debug_mode()
    benchmark_before = torch.backends.cudnn.benchmark
    fill_before = deterministic_settings.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # `use_deterministic_algorithms` would import the compiler
    torch.backends.cudnn.benchmark = False
    deterministic_settings.fill_uninitialized_memory = False
    try:
        with ExitStack() as stack:
            if device.type == "cpu" and threads == 1 and is_pinned():
                replace_kernels()
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_deterministic_debug_mode(mode_before)
        torch.backends.cudnn.benchmark = benchmark_before
        deterministic_settings.fill_uninitialized_memory = fill_before


def reseed(device: torch.device, seed: int) -> None:
    """Seeds the random number generator of `device`, which dropout uses.

    `torch.manual_seed` would seed all devices: for an absent GPU it queues a call and formats a stack trace
    each time.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
