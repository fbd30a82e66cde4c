"""Training loop: steps, validation, metrics, checkpoints and resuming.

Every step is a function of (weights, optimizer state, step number): its windows come from
`draw_windows(seed, step)` and its dropout from a seed derived from (seed, step, micro-batch). A run that is
interrupted anywhere and resumed is therefore bitwise identical to an uninterrupted one; steps after the last
checkpoint are repeated with the same result.

    a step   windows -> micro-batches -> summed nll / all targets of the step -> clip -> optimizers
    then     validation?  ->  row of the curve?  ->  checkpoint?  ->  stop requested?

With several ranks, each computes its part of the windows of a step and of the validation batches, and all
make the same decisions based on sums over all ranks.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from coma_gen.config.schema import TrainParams
from coma_gen.core.errors import Fault, UserError, memory_fault
from coma_gen.model.conformer import num_parameters
from coma_gen.model.device import deterministic
from coma_gen.shards.conditions import WindowConditions
from coma_gen.shards.read import ShardedSplit
from coma_gen.training.batches import BatchQueue
from coma_gen.training.distillation import Teacher
from coma_gen.training.distributed import SINGLE_PROCESS, Distributed, is_lost_peer
from coma_gen.training.figures import StepFigures, StepLosses
from coma_gen.training.gradients import clip_gradient
from coma_gen.training.loss import validation_nll
from coma_gen.training.metrics_log import MetricsLog, MetricsRow
from coma_gen.training.optimizer import set_learning_rate
from coma_gen.training.plan import StepPlan
from coma_gen.training.progress import TrainingResult
from coma_gen.training.run_lock import exclusive_run_lock
from coma_gen.training.schedule import learning_rate_factor
from coma_gen.training.signals import GracefulStop
from coma_gen.training.state import TrainState
from coma_gen.training.step_gradient import StepGradient


def train_model(
    *,
    model: nn.Module,
    train_split: ShardedSplit,
    validation_split: ShardedSplit,
    shifts: NDArray[np.uint16] | None,
    params: TrainParams,
    threads: int,
    device: str,
    pad_id: int,
    resume: Path,
    key: str,
    events: Path | None = None,
    ranks: Distributed = SINGLE_PROCESS,
    conditions: WindowConditions | None = None,
    teacher: Teacher | None = None,
) -> TrainingResult | None:
    """Trains a model in place, resuming from the newest checkpoint in `resume` if there is one.

    The model stays on the device; torch's random state is not restored.

    Args:
        model: Model with its initial weights; `model(input_ids (B, T))` returns logits (B, T, V).
        train_split: Split that training windows are drawn from.
        validation_split: Split that is scored as a whole.
        shifts: uint16 (variations, V) token maps, one of which is applied to each training window; None for
            none. Ignored if `params.augment` is off.
        params: Optimization settings.
        threads: Number of CPU threads, on which the result depends.
        device: cpu, cuda, mps or auto.
        pad_id: Id that pads windows.
        resume: Folder of the run's checkpoints, curve.csv and speed.csv; created if missing.
        key: Digest of everything that the result depends on (settings, data, code, initial weights).
        events: Folder of TensorBoard event files, emptied first; None to write none.
        ranks: The ranks of the run, which all call this function alike; only the first accesses `resume`.
        conditions: Draws the condition bins of the training windows; None for a model without conditions.
        teacher: Teacher model for distillation, or None.

    Returns:
        The result on the first rank, None on the others.

    Raises:
        UserError: For a missing device, an empty split, a resume folder with another key or without an intact
            checkpoint, ranks with different keys, a non-finite loss, gradient or weight, a diverged loss, or
            too little memory. Existing checkpoints are not removed.
        TrainingInterrupted: After SIGINT or SIGTERM, with a checkpoint of the last complete step.
    """
    for name, split in (("train", train_split), ("validation", validation_split)):
        if split.num_tokens < 2:
            rule = "must have at least one token to predict"
            raise UserError(Fault(f"{name} split", rule, f"{split.num_tokens} tokens"))
    torch_device = ranks.device(device)
    lock = exclusive_run_lock(resume) if ranks.is_first else nullcontext()
    with lock, deterministic(threads, torch_device), GracefulStop(patient=ranks.size > 1) as stop:
        train_state = TrainState(model.to(torch_device), params, resume=resume, key=key, ranks=ranks)
        folder, events = (resume, events) if ranks.is_first else (None, None)
        with MetricsLog(folder, train_state.restore(), events=events) as curve:
            run = _TrainLoop(
                train_state=train_state,
                gradient=StepGradient(
                    model=train_state.model,
                    trainable=train_state.trainable,
                    split=train_split,
                    shifts=shifts if params.augment else None,
                    conditions=conditions,
                    teacher=teacher,
                    params=params,
                    device=torch_device,
                    pad_id=pad_id,
                    ranks=ranks,
                ),
                validation_split=validation_split,
                params=params,
                plan=StepPlan(params, train_state.progress, validation_tokens=validation_split.num_tokens),
                ranks=ranks,
            )
            run.advance(curve, stop)
        return run.result(curve.path) if ranks.is_first else None


@dataclass
class _TrainLoop:
    """One session of a run, from a checkpoint (or the start) to the end or the next interruption.

    Attributes:
        train_state: Model, optimizers and progress.
        gradient: Computes the gradient of a step.
        params: Optimization settings; the effective steps and warm-up are those of `plan`.
        ranks: The ranks of the run.
        rate_factor: Learning rate of the last step as a fraction of the peak.
        losses: Losses of the steps.
    """

    train_state: TrainState
    gradient: StepGradient
    validation_split: ShardedSplit
    params: TrainParams
    plan: StepPlan
    ranks: Distributed
    rate_factor: float = 0.0
    losses: StepLosses = field(init=False)

    def __post_init__(self) -> None:
        self.losses = StepLosses(self.train_state.progress, build_error=self.build_error)

    @property
    def reads_each_step(self) -> bool:
        """Whether losses are read at every step, not once per row; on a GPU each read would synchronize."""
        return self.gradient.device.type != "cuda" or self.ranks.size > 1

    @property
    def is_over(self) -> bool:
        """Whether all steps are done or training has stopped early."""
        progress = self.train_state.progress
        return progress.step >= self.plan.params.steps or progress.stopped_early

    def advance(self, curve: MetricsLog, stop: GracefulStop) -> None:
        """Runs the remaining steps."""
        progress = self.train_state.progress
        bar = tqdm(
            total=self.plan.params.steps,
            initial=progress.step,
            desc="train",
            unit="step",
            disable=None if self.ranks.is_first else True,
        )
        last_whole_step = progress.step
        try:
            queue = BatchQueue(self.gradient.draw, device=self.gradient.device, last=self.params.steps)
            with bar, queue as batches:
                if not self.is_over:
                    self.gradient.prepare(batches, step=progress.step)
                while not self.is_over:
                    curve.start()
                    tokens = self.take_step(progress.step + 1, batches)
                    curve.count(tokens)
                    self.after_step(curve)
                    last_whole_step = progress.step
                    speed = f"{curve.tokens_per_second:,.0f} tokens/s"
                    bar.set_postfix_str(f"loss {self.losses.loss:.3f}, {speed}", refresh=False)
                    bar.total = self.plan.params.steps
                    bar.update()
                    self.stop_if_requested(curve, stop)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and is_lost_peer(error) and last_whole_step == progress.step:
                self.save(curve)
            remedy = "halve train.micro_batch and double train.grad_accum_steps: the batch stays the same"
            if fault := memory_fault(error, where=f"train step {progress.step + 1}", remedy=remedy):
                raise UserError(fault) from error
            raise

    def stop_if_requested(self, curve: MetricsLog, stop: GracefulStop) -> None:
        """Saves a checkpoint and ends the run on all ranks if any rank has received a stop signal."""
        (num_stopped,) = self.ranks.sum_over_ranks(stop.reason is not None)
        if num_stopped:
            self.save(curve)
            self.ranks.sum_over_ranks(0)  # barrier: torchrun kills all ranks when one exits
            stopped = stop.build_exception(self.train_state.progress.step)
            raise self.ranks.exit_error(stopped, stopped.exit_status)

    def take_step(self, step: int, batches: BatchQueue) -> int:
        """Updates the weights once; returns the number of targets.

        Raises:
            UserError: If the loss or gradient is not finite or the loss has diverged, in this step or, unless
                `reads_each_step`, in any step since the last row. No checkpoint is saved from such a step on;
                with `reads_each_step` the weights are not updated, either.
        """
        params, ranks = self.plan.params, self.ranks
        nlls, tokens = self.gradient.accumulate(step, batches)
        if ranks.size > 1:
            loss_sum, count = ranks.sum_over_ranks(sum(map(float, nlls)), tokens)
            nlls, tokens = [torch.tensor(loss_sum, dtype=torch.float64)], int(count)
        grad_norm = clip_gradient(self.train_state.trainable, params.clip_norm, divisor=tokens / ranks.size)
        self.losses.add(StepFigures(step, tokens, nlls, grad_norm))
        if self.reads_each_step or self.plan.is_row_due(step):
            self.losses.read(at_once=not self.reads_each_step)
        self.rate_factor = learning_rate_factor(step, params)
        set_learning_rate(self.train_state.optimizers, self.rate_factor)
        for optimizer in self.train_state.optimizers:
            optimizer.step()
        self.train_state.progress.count_step(tokens)
        return tokens

    def after_step(self, curve: MetricsLog) -> None:
        """Validates, appends a row to the curve and saves a checkpoint, each if due."""
        params, progress = self.params, self.train_state.progress
        step = progress.step
        self.plan.update(step, ranks=self.ranks)
        nll = self.validate() if self.plan.is_validation_due(step) else None
        if self.plan.is_row_due(step):
            self.losses.read(at_once=not self.reads_each_step)
            loss, rate = progress.close_interval(), params.learning_rate * self.rate_factor
            curve.append(MetricsRow(step, progress.tokens, loss, rate, self.losses.grad_norm, nll))
        if nll is not None or step % params.checkpoint_every == 0:
            self.save(curve)

    def save(self, curve: MetricsLog) -> None:
        """Saves a checkpoint of this step.

        Raises:
            UserError: As in `StepLosses.read`, and if a weight is not finite; nothing is saved then.
        """
        self.losses.read(at_once=not self.reads_each_step)
        with self.plan.timed("checkpoint"):
            weights = self.train_state.weights()
            if not all(bool(weight.isfinite().all()) for weight in weights.values()):
                rule = "weights must be finite"
                raise self.build_error(self.train_state.progress.step, rule, "NaN or infinity")
            self.train_state.save(curve.text, weights)

    def validate(self) -> float:
        """Computes the validation loss, updates the best weights and applies early stopping.

        Raises:
            UserError: If the loss is not finite.
        """
        params, progress = self.params, self.train_state.progress
        with self.plan.timed("validation"):
            nll = validation_nll(
                self.train_state.model,
                self.validation_split,
                seq_len=params.seq_len,
                batch=params.micro_batch,
                pad_id=self.gradient.pad_id,
                device=self.gradient.device,
                bf16=self.gradient.bf16,
                ranks=self.ranks,
            )
        if not math.isfinite(nll):
            raise self.build_error(progress.step, "validation nll must be finite", f"{nll:g}")
        self.train_state.count_validation(nll)
        if params.early_stopping is not None and progress.validations_without_better >= params.early_stopping:
            progress.stopped_early = progress.step < self.plan.params.steps
        return nll

    def build_error(self, step: int, rule: str, got: str) -> BaseException:
        """Builds the error of a diverged step; all ranks detect the same step."""
        saved = self.train_state.saved_step
        last = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was due yet"
        remedy = f"lower train.learning_rate (now {self.params.learning_rate:g}) or train.clip_norm; {last}"
        return self.ranks.exit_error(UserError(Fault(f"train step {step}", rule, got, remedy)), status=1)

    def result(self, curve: Path) -> TrainingResult:
        """Builds the result of a finished run."""
        metrics = self.train_state.progress.metrics(
            parameters=num_parameters(self.train_state.model), split_tokens=self.gradient.split.num_tokens
        )
        best = {name: value.clone() for name, value in self.train_state.best.items()}
        return TrainingResult(best, self.train_state.weights(), metrics, curve)
