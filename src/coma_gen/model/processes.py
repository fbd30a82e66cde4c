"""How many processes of this machine share the numeric work of an experiment, and how many experiments fit.

Processes of one thread share cores well, also with other work. Threads of one process wait for each other by
spinning, which takes the core from whoever could have used it.
"""

from __future__ import annotations

from coma_gen.config.schema import RuntimeParams, TrainParams
from coma_gen.core.cores import available_cores


def chosen_processes(runtime: RuntimeParams) -> int:
    """What `runtime.processes` says; "auto" is two where there are two cores and no other device."""
    if runtime.processes != "auto":
        return runtime.processes
    return 2 if available_cores() > 1 and _is_cpu(runtime.device) else 1


def chosen_ranks(runtime: RuntimeParams, train: TrainParams) -> int:
    """`chosen_processes` for training: under "auto" one where a step has an odd number of micro-batches."""
    if runtime.processes == "auto" and train.grad_accum_steps % 2:
        return 1
    return chosen_processes(runtime)


def carried_experiments(runtime: RuntimeParams) -> int:
    """How many experiments with these settings this machine's cores carry at a time, each at full speed."""
    return max(1, available_cores() // (chosen_processes(runtime) * runtime.threads))


def _is_cpu(device: str) -> bool:
    if device != "auto":
        return device == "cpu"
    from coma_gen.model.device import choose_device  # with torch, which takes seconds

    return choose_device(device).type == "cpu"
