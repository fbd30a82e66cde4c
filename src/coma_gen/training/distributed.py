"""Data-parallel training with torch.distributed.

The world size affects speed but not the result: the windows of a step are numbered and assigned to ranks by
number, dropout is seeded per micro-batch, and the loss is summed over all ranks and weighted by tokens.

    windows of a step    0 1 2 3 | 4 5 6 7        micro_batch 4, grad_accum_steps 2
    ranks of 2              0    |    1           complete micro-batches per rank
    ranks of 4            0   1  |  2   3         or an equal part of one, if there is no dropout

On GPUs, DistributedDataParallel (Li et al. 2020, arXiv 2006.15704) all-reduces gradients over NCCL during the
backward pass. On CPUs they are all-reduced in one piece over gloo after the backward pass, since an
overlapping exchange would compete for the same cores. Other communication is a few numbers per step over
gloo.

All ranks read the shards. Only the first rank accesses the files of the run: it holds the lock, reads and
writes checkpoints, writes curve, metrics and model, and logs.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from traceback import clear_frames
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from coma_gen.config.schema import TrainParams
from coma_gen.core.errors import Fault, UserError
from coma_gen.model.device import choose_device
from coma_gen.training.launch import LOST, RANK_VARIABLES, RENDEZVOUS, is_rank

PATIENCE = timedelta(days=7)
"""Timeout of collectives: the first rank may wait for another process that trains the same model. The exit of
a process is detected at once.
"""


class BatchShard(NamedTuple):
    """Part of each step's batch that a rank computes.

    Attributes:
        first: Index of the rank's first window in the step's batch.
        windows: Number of windows.
        micro_batches: Number of forward passes.
        first_micro_batch: Number of the rank's first micro-batch in the step.
    """

    first: int
    windows: int
    micro_batches: int
    first_micro_batch: int


@dataclass(frozen=True)
class Distributed:
    """Rank and world size of this process, with the collectives that training needs.

    Attributes:
        rank: Rank of this process, from 0.
        size: World size.
        local_rank: Rank among the processes of this machine.
    """

    rank: int
    size: int
    local_rank: int

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that accesses the files of the run and logs."""
        return self.rank == 0

    def shard_batch(self, params: TrainParams) -> BatchShard:
        """Returns this rank's part of a step; `check_world_size` must accept the world size."""
        windows = params.micro_batch * params.grad_accum_steps // self.size
        first = self.rank * windows
        micro_batches = max(1, params.grad_accum_steps // self.size)
        return BatchShard(first, windows, micro_batches, first // params.micro_batch)

    def device(self, name: str) -> torch.device:
        """Returns this rank's device.

        Args:
            name: cpu, cuda, mps or auto.

        Raises:
            UserError: If this machine has no such device, or fewer GPUs than ranks.
        """
        device = choose_device(name)
        if self.size == 1 or device.type == "cpu":
            return device
        if device.type != "cuda":
            rule = "must be cpu or cuda where several processes share a step"
            raise UserError(Fault("runtime.device", rule, name))
        present = torch.cuda.device_count()
        if self.local_rank >= present:
            rule = f"must not exceed the GPUs of a machine ({present} here)"
            error = UserError(Fault("runtime.processes", rule, f"{present + 1} or more"))
            raise error if self.local_rank == present else SystemExit(1)
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def wrap_model(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Broadcasts the first rank's weights; on a GPU also wraps the model in DistributedDataParallel.

        A wrapped model averages gradients over ranks in each backward pass outside `no_sync`; on a CPU, call
        `average`. The model has no buffers, so the option not to broadcast them, whose name depends on
        torch's version, is not needed.
        """
        if device.type != "cuda":
            for weight in model.state_dict().values():
                dist.broadcast(weight, 0)
            return model
        return DistributedDataParallel(
            model,
            device_ids=[device.index],
            process_group=dist.new_group(backend="nccl"),
            gradient_as_bucket_view=True,
        )

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Averages gradients on CPUs over all ranks; a collective."""
        trained = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat.div_(self.size)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def divide(self, work: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Returns `work(rows)`, with the rows (K, ...) divided among the ranks; a collective.

        Args:
            work: Function that preserves the shape and computes each row independently of the others,
                bitwise.
            rows: Equal on all ranks.
        """
        if self.size == 1:
            return work(rows)
        first, last = (len(rows) * rank // self.size for rank in (self.rank, self.rank + 1))
        result = torch.zeros_like(rows)
        if first < last:
            result[first:last] = work(rows[first:last])
        dist.all_reduce(result)
        return result

    def sum_over_ranks(self, *numbers: float) -> list[float]:
        """Sums each number over all ranks; a collective."""
        if self.size == 1:
            return list(numbers)
        summed = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(summed)
        return [float(number) for number in summed]

    def gather(self, numbers: Sequence[float], *, max_length: int) -> list[float]:
        """Gathers the numbers of all ranks in rank order, padded with zeros; a collective.

        Args:
            numbers: Numbers of this rank, at most `max_length`.
            max_length: Length to pad to, equal on all ranks.
        """
        padded = [0.0] * (self.size * max_length)
        padded[self.rank * max_length : self.rank * max_length + len(numbers)] = numbers
        return self.sum_over_ranks(*padded)

    def broadcast(self, content: bytes) -> bytes:
        """Broadcasts the first rank's content, which replaces that of the others; a collective."""
        (length,) = self.sum_over_ranks(len(content) if self.is_first else 0)
        source = np.frombuffer(content, np.uint8) if self.is_first else np.empty(int(length), np.uint8)
        received = torch.from_numpy(source.copy())
        dist.broadcast(received, 0)
        return received.numpy().tobytes()

    def exit_error(self, error: BaseException, status: int) -> BaseException:
        """Returns the exception to raise if all ranks exit for one reason; only the first reports it."""
        return error if self.is_first else SystemExit(status)


SINGLE_PROCESS = Distributed(rank=0, size=1, local_rank=0)
"""A single process without torch.distributed."""


@contextmanager
def init_distributed() -> Iterator[Distributed]:
    """Initializes the process group if this process is one of several ranks; destroys it on exit.

    Raises:
        UserError: If another rank exits or cannot be reached.
        SystemExit: In the same cases under `launch_ranks`, which reports the error for all ranks.
    """
    rank, local_rank, size = (int(os.environ[name]) for name in RANK_VARIABLES) if is_rank() else (0, 0, 1)
    if size == 1:
        yield SINGLE_PROCESS
        return
    meeting = os.environ.get(RENDEZVOUS)
    # If imported after init_process_group, this module would hold a reference to the group forever.
    import_module("torch.distributed.nn.functional")
    try:
        dist.init_process_group(
            "gloo",
            store=None if meeting is None else dist.FileStore(meeting, size),  # type: ignore[attr-defined]
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
        yield Distributed(rank=rank, size=size, local_rank=local_rank)
    except BaseException as error:
        clear_frames(error.__traceback__)
        if not (isinstance(error, RuntimeError) and is_lost_peer(error)):
            raise
        if meeting is not None:
            raise SystemExit(LOST) from None
        was_initialized = dist.is_initialized()
        rule = "exited because another rank did" if was_initialized else "must reach the other ranks"
        remedy = "see their output; the same command resumes from the last checkpoint"
        got = "" if was_initialized else str(error).partition("\n")[0]
        raise UserError(Fault(f"rank {rank} of {size}", rule, got, remedy)) from None
    finally:
        _destroy_process_group()


def _destroy_process_group() -> None:
    """Destroys the process group after DistributedDataParallel models are garbage-collected.

    The group's destructor waits for gloo's threads, which need the GIL to exit. Python releases the GIL when
    it destroys the group; a DistributedDataParallel model that holds the last reference does not, which
    occasionally deadlocks.
    """
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether torch raised the error because another rank is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
