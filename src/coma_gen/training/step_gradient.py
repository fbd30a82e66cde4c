"""Gradient of a step, from its windows to the average over ranks: eager, compiled or with CUDA graphs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coma_gen.config.schema import TrainParams
from coma_gen.model.compile import compile_model
from coma_gen.model.conformer import Conformer
from coma_gen.shards.conditions import WindowConditions
from coma_gen.shards.read import ShardedSplit
from coma_gen.shards.windows import draw_windows
from coma_gen.training.batches import BatchQueue
from coma_gen.training.distillation import Teacher
from coma_gen.training.distributed import Distributed
from coma_gen.training.gradients import accumulate_gradient, add_gradient
from coma_gen.training.recorded import AddGradient, RecordedGradient, try_recording


@dataclass
class StepGradient:
    """Computes the gradient of a step in the `grad` of a model's parameters.

    Attributes:
        model: The model, on its device.
        trainable: Its trainable parameters.
        split: Split that windows are drawn from.
        shifts: uint16 (variations, V) token maps, one of which is applied to each window; None for none.
        conditions: Draws the condition bins of the windows; None for a model without conditions.
        params: Optimization settings.
        device: Device of the model.
        pad_id: Id that pads windows.
        ranks: The ranks of the run.
        wrapped: The model, wrapped in DistributedDataParallel if several GPUs train it.
        add: Forward and backward pass of a micro-batch; None for `add_gradient` of `wrapped`.
        teacher: Teacher model for distillation, or None.
    """

    model: nn.Module
    trainable: list[nn.Parameter]
    split: ShardedSplit
    shifts: NDArray[np.uint16] | None
    conditions: WindowConditions | None
    params: TrainParams
    device: torch.device
    pad_id: int
    ranks: Distributed
    wrapped: nn.Module = field(init=False)
    add: AddGradient | None = None
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        self.wrapped = self.model
        if self.params.streams == "bf16":
            cast("Conformer", self.model).stream_dtype = torch.bfloat16
        if self.teacher is not None:
            self.teacher.model.to(self.device)

    @property
    def bf16(self) -> bool:
        """Whether the model runs under bf16 autocast."""
        return self.params.precision == "bf16"

    def prepare(self, batches: BatchQueue, *, step: int) -> None:
        """Prepares the model for training: compilation, DistributedDataParallel and CUDA graphs.

        DistributedDataParallel rebuilds its buckets after the first backward pass. A first pass whose
        gradient is discarded makes every step, of new and of resumed runs, reduce in the same order.

        Args:
            batches: Queue of the batches of `draw`.
            step: Last completed step.
        """
        self.model.train()
        if self.params.compile:
            compile_model(
                cast("Conformer", self.model),
                length=self.params.seq_len,
                device=self.device,
                warm_up=self.run_warm_up_pass,
            )
        if self.ranks.size > 1:
            self.wrapped = self.ranks.wrap_model(self.model, self.device)
            if self.wrapped is not self.model:
                self.accumulate(step, batches)
        if self.params.cuda_graphs and self.device.type == "cuda":
            passes = partial(add_gradient, self.model, bf16=self.bf16, teacher=self.teacher)
            shape = self.micro_batch_shape
            num_conditions = len(self.conditions.tables.names) if self.conditions else 0
            self.add = try_recording(
                passes, shape=shape, pad_id=self.pad_id, device=self.device, conditions=num_conditions
            )

    @property
    def micro_batch_shape(self) -> tuple[int, int]:
        """Number of windows and tokens of a forward pass."""
        part = self.ranks.shard_batch(self.params)
        return part.windows // part.micro_batches, self.params.seq_len

    def run_warm_up_pass(self) -> None:
        """Runs a forward and a backward pass with the shapes of a micro-batch and discards the gradient."""
        input_ids = torch.full(self.micro_batch_shape, self.pad_id, device=self.device)
        add_gradient(self.model, input_ids, input_ids, bf16=self.bf16)
        self.model.zero_grad(set_to_none=True)

    def draw(self, step: int) -> tuple[NDArray[np.int64], ...]:
        """Draws this rank's windows of a step, their targets and, for a model with conditions, their bins."""
        part, seed = self.ranks.shard_batch(self.params), self.params.seed
        windows = draw_windows(
            self.split,
            seed=seed,
            step=step,
            batch=part.windows,
            seq_len=self.params.seq_len,
            shifts=self.shifts,
            pad_id=self.pad_id,
            first=part.first,
        )
        if self.conditions is None:
            return windows
        return *windows, self.conditions.draw(*windows, seed=seed, step=step, first=part.first)

    def accumulate(self, step: int, batches: BatchQueue) -> tuple[list[Tensor], int]:
        """Computes the gradient of a step, averaged over ranks; returns this rank's summed nlls and number of
        targets.
        """
        part, batch = self.ranks.shard_batch(self.params), batches.take(step)
        self.model.zero_grad(set_to_none=not isinstance(self.add, RecordedGradient))
        nlls = accumulate_gradient(
            self.wrapped,
            batch,
            micro_batches=part.micro_batches,
            first_micro_batch=part.first_micro_batch,
            seed=self.params.seed,
            step=step,
            device=self.device,
            bf16=self.bf16,
            add=self.add,
            teacher=self.teacher,
        )
        if self.ranks.size > 1 and self.wrapped is self.model:
            self.ranks.average(self.trainable)
        return nlls, batch.tokens
