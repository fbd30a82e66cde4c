"""Chooses the number of processes of an experiment and of concurrent experiments.

Single-threaded processes share cores well, also with other programs. Threads of one process wait for each
other by spinning, which blocks the core for everyone else.
"""

from __future__ import annotations

from coma_gen.config.schema import RuntimeParams, TrainParams
from coma_gen.core.cores import available_cores


def choose_processes(runtime: RuntimeParams) -> int:
    """Returns `runtime.processes`; "auto" is two on a CPU with at least two cores, else one."""
    if runtime.processes != "auto":
        return runtime.processes
    return 2 if available_cores() > 1 and _is_cpu(runtime.device) else 1


def choose_ranks(runtime: RuntimeParams, train: TrainParams) -> int:
    """Returns the number of training processes; "auto" is one if grad_accum_steps is odd."""
    if runtime.processes == "auto" and train.grad_accum_steps % 2:
        return 1
    return choose_processes(runtime)


def max_concurrent_experiments(runtime: RuntimeParams) -> int:
    """Returns how many experiments this machine's cores can run concurrently at full speed."""
    return max(1, available_cores() // (choose_processes(runtime) * runtime.threads))


def _is_cpu(device: str) -> bool:
    if device != "auto":
        return device == "cpu"
    from coma_gen.model.device import choose_device  # imports torch, which takes seconds

    return choose_device(device).type == "cpu"
