"""The ranks that share each step of a training, and what they tell each other (torch.distributed, DDP).

World size is a matter of speed, never of the result: a step's windows are numbered, and each rank takes those
at its place; dropout is drawn by micro-batch; the loss is summed over all and weighted by tokens.

    windows of a step    0 1 2 3 | 4 5 6 7        micro_batch 4, grad_accum_steps 2
    ranks of 2              0    |    1           whole micro-batches each
    ranks of 4            0   1  |  2   3         or an equal part of one, where there is no dropout

Between GPUs gradients are summed by DistributedDataParallel (Li et al. 2020, arXiv 2006.15704) over NCCL,
while the backward pass still runs. Between CPUs they are summed in one piece over gloo, after it: there an
exchange at the same time would only take the core from the backward pass. All else that ranks say to each
other is a few numbers a step, over gloo.

The first rank alone has files: it holds the run's lock, reads and writes checkpoints, writes curve, metrics
and model, and says what is to be said. The others follow it.
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
"""How long a rank waits for the first one, which may wait for another trainer of the same model. The end of a
process is noticed at once.
"""


class BatchShard(NamedTuple):
    """A rank's part of each step.

    Attributes:
        first: index in the step's batch of its first window.
        windows: how many.
        micro_batches: forward passes that it cuts them into.
        first_micro_batch: number in the step of the first of these.
    """

    first: int
    windows: int
    micro_batches: int
    first_micro_batch: int


@dataclass(frozen=True)
class Distributed:
    """All ranks, as one of them sees them.

    Attributes:
        rank: this one, from 0.
        size: how many there are.
        local_rank: this one among those of its machine.
    """

    rank: int
    size: int
    local_rank: int

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that has files and a voice."""
        return self.rank == 0

    def share(self, params: TrainParams) -> BatchShard:
        """The windows of a step that are this rank's, where `runtime.processes` fits the params."""
        windows = params.micro_batch * params.grad_accum_steps // self.size
        first = self.rank * windows
        micro_batches = max(1, params.grad_accum_steps // self.size)
        return BatchShard(first, windows, micro_batches, first // params.micro_batch)

    def device(self, name: str) -> torch.device:
        """This rank's device.

        Args:
            name: cpu, cuda, mps or auto.

        Raises:
            UserError: when this machine has none, or not one for each of its ranks.
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

    def shared(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with the weights of the first rank. On a GPU each backward pass that is not within
        `no_sync` ends with the gradient's average over all ranks; elsewhere `average` is to be called.
        The model has no buffers, so the option to leave them alone, whose name depends on torch's version, is
        not needed.
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
        """Averages the gradients of a model on CPUs over all ranks. Waits for them."""
        learning = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        together.div_(self.size)
        parts = torch.split(together, [gradient.numel() for gradient in gradients])
        for parameter, part in zip(learning, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def divide(self, work: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """`work(rows)`, each rank working on its part of the rows (K, ...). Waits for the others.

        Args:
            work: keeps the shape, and gives a row the same bits whatever rows are with it.
            rows: the same on all ranks.
        """
        if self.size == 1:
            return work(rows)
        first, last = (len(rows) * rank // self.size for rank in (self.rank, self.rank + 1))
        result = torch.zeros_like(rows)
        if first < last:
            result[first:last] = work(rows[first:last])
        dist.all_reduce(result)
        return result

    def total(self, *numbers: float) -> list[float]:
        """Each number summed over all ranks, the same on each of them. Waits for them."""
        if self.size == 1:
            return list(numbers)
        summed = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(summed)
        return [float(number) for number in summed]

    def each(self, numbers: Sequence[float], *, most: int) -> list[float]:
        """The numbers of all ranks, the same list on each of them, filled up with zeros. Waits for them.

        Args:
            numbers: this rank's, at most `most`.
            most: the same on all ranks.
        """
        laid_out = [0.0] * (self.size * most)
        laid_out[self.rank * most : self.rank * most + len(numbers)] = numbers
        return self.total(*laid_out)

    def from_first(self, content: bytes) -> bytes:
        """What the first rank has, on every rank; the others' own is dropped."""
        (length,) = self.total(len(content) if self.is_first else 0)
        given = np.frombuffer(content, np.uint8) if self.is_first else np.empty(int(length), np.uint8)
        told = torch.from_numpy(given.copy())
        dist.broadcast(told, 0)
        return told.numpy().tobytes()

    def ended(self, error: BaseException, status: int) -> BaseException:
        """What to raise when all ranks end for the same reason: the first says it, the others just end."""
        return error if self.is_first else SystemExit(status)


SINGLE_PROCESS = Distributed(rank=0, size=1, local_rank=0)
"""One process that does everything."""


@contextmanager
def init_distributed() -> Iterator[Distributed]:
    """Joins the other ranks, where this process was started as one of several, and leaves them again.

    Raises:
        UserError: when another rank ends or cannot be reached while this one needs it.
        SystemExit: the same under `launch_ranks`, which says it for all.
    """
    rank, local_rank, size = (int(os.environ[name]) for name in RANK_VARIABLES) if is_rank() else (0, 0, 1)
    if size == 1:
        yield SINGLE_PROCESS
        return
    meeting = os.environ.get(RENDEZVOUS)
    import_module("torch.distributed.nn.functional")  # after the next line it would keep the group for ever
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
        met = dist.is_initialized()
        rule = "ended because another rank did" if met else "must meet the other ranks"
        remedy = "see what they wrote; the same command goes on from the last checkpoint"
        got = "" if met else str(error).partition("\n")[0]
        raise UserError(Fault(f"rank {rank} of {size}", rule, got, remedy)) from None
    finally:
        _leave()


def _leave() -> None:
    """Ends the connections to the other ranks, once no shared model is left.

    The process group waits for gloo's threads, which need the interpreter's lock to end. Python gives the
    lock away meanwhile. A shared model does not: were it the last to let go of the group, each would wait for
    the other, for ever, now and then.
    """
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether this is how torch says that another rank is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)
