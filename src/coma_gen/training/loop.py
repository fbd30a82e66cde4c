"""The training loop: steps, validation, the curve, checkpoints, and going on after an interruption.

Every step is a function of (weights, optimizer state, step number): its windows come from
`draw_windows(seed, step)` and its dropout from a seed made of (seed, step, micro-batch). So a run that was
stopped anywhere, and started again, takes the same steps as one that was not, to the last bit. What happens
between two checkpoints may happen twice, with one result.

    a step   windows -> micro-batches -> summed nll / all targets of the step -> clip -> AdamW
    then     validation?  ->  row of the curve?  ->  checkpoint?  ->  asked to stop?

Where several ranks share the run, each takes its part of a step's windows and of a validation's batches, and
all take the same decisions, from sums over all of them.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from coma_gen.config.schema import TrainParams
from coma_gen.core.errors import Fault, UserError, memory_fault
from coma_gen.model.compile import compile_model
from coma_gen.model.conformer import Conformer, num_parameters
from coma_gen.model.device import deterministic
from coma_gen.shards.conditions import WindowConditions
from coma_gen.shards.read import ShardedSplit
from coma_gen.shards.windows import draw_windows
from coma_gen.training.batches import BatchQueue
from coma_gen.training.distributed import SINGLE_PROCESS, Distributed, is_lost_peer
from coma_gen.training.figures import StepFigures, read_figures
from coma_gen.training.gradients import accumulate_gradient, add_gradient, clip_gradient
from coma_gen.training.loss import validation_nll
from coma_gen.training.metrics_log import MetricsLog, MetricsRow
from coma_gen.training.optimizer import set_learning_rate
from coma_gen.training.plan import StepPlan
from coma_gen.training.progress import TrainingResult
from coma_gen.training.recorded import AddGradient, RecordedGradient, recorded_or_plain
from coma_gen.training.run_lock import exclusive_run_lock
from coma_gen.training.schedule import learning_rate_share
from coma_gen.training.signals import GracefulStop
from coma_gen.training.state import TrainState

MAX_LOSS = 100.0
"""Nats per token. A model that knows nothing has ln(vocabulary), about 6; what is here gives the right token
e^-100.
"""


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
) -> TrainingResult | None:
    """Trains a model, from where the resume folder left off if it holds a checkpoint of the same key.

    The model is trained in place and stays on the device; torch's random state is left as it comes.

    Args:
        model: fresh, or with the weights to start from; `model(input_ids (B, T))` gives logits (B, T, V).
        train_split: what windows are drawn from.
        validation_split: what is scored whole.
        shifts: uint16 (variations, V), one of which each train window goes through; None for none. Not used
            where `params.augment` is off.
        params: the optimisation.
        threads: CPU threads; the result depends on it.
        device: cpu, cuda, mps or auto.
        pad_id: what fills a window up.
        resume: folder of the run's checkpoints, curve.csv and speed.csv; made when it is not there.
        key: digest of everything that the result depends on (settings, data, code, starting weights).
        events: folder of TensorBoard's event files, which the first rank empties; None writes none.
        ranks: those who share the run; all call this alike. The first one alone touches the resume folder.
        conditions: what a model that has some is told of its train windows; None for one without.

    Returns:
        The result on the first rank, None on the others.

    Raises:
        UserError: no such device; an empty split; a resume folder of another key, or with damaged checkpoints
            only; ranks of different keys; a loss, gradient or weight that is not finite, an exploded loss,
            or too little memory (the checkpoints stay).
        TrainingInterrupted: after SIGINT or SIGTERM, with a checkpoint of the last whole step.
    """
    for name, split in (("train", train_split), ("validation", validation_split)):
        if split.num_tokens < 2:
            raise UserError(
                Fault(
                    f"{name} split", "must have at least one token to predict", f"{split.num_tokens} tokens"
                )
            )
    torch_device = ranks.device(device)
    lock = exclusive_run_lock(resume) if ranks.is_first else nullcontext()
    if params.streams == "bf16":
        cast("Conformer", model).stream_dtype = torch.bfloat16
    with lock, deterministic(threads, torch_device), GracefulStop(patient=ranks.size > 1) as stop:
        train_state = TrainState(model.to(torch_device), params, resume=resume, key=key, ranks=ranks)
        folders = (resume, events) if ranks.is_first else (None, None)
        with MetricsLog(folders[0], train_state.restore(), events=folders[1]) as curve:
            run = _TrainLoop(
                train_state=train_state,
                shared=train_state.model,
                train_split=train_split,
                validation_split=validation_split,
                shifts=shifts if params.augment else None,
                params=params,
                plan=StepPlan(params, train_state.progress, validation_tokens=validation_split.num_tokens),
                device=torch_device,
                pad_id=pad_id,
                ranks=ranks,
                conditions=conditions,
            )
            run.advance(curve, stop)
        return run.result(curve.path) if ranks.is_first else None


@dataclass
class _TrainLoop:
    """A run between two interruptions.

    Attributes:
        train_state: what learns.
        shared: its model, as all ranks train it.
        params: the optimisation; `plan` has its steps and warm-up.
        ranks: those who train it.
        add: the passes of a micro-batch; None for those of `shared` as they are.
        unread: steps whose figures are still on the device.
        share: of the peak learning rate, in the last step.
        loss: of the last step that was read, nats per token.
        grad_norm: of that step, before clipping.
    """

    train_state: TrainState
    shared: nn.Module
    train_split: ShardedSplit
    validation_split: ShardedSplit
    shifts: NDArray[np.uint16] | None
    params: TrainParams
    plan: StepPlan
    device: torch.device
    pad_id: int
    ranks: Distributed
    conditions: WindowConditions | None = None
    add: AddGradient | None = None
    unread: list[StepFigures] = field(default_factory=list)
    share: float = 0.0
    loss: float = 0.0
    grad_norm: float = 0.0

    @property
    def reads_each_step(self) -> bool:
        """Whether the figures of each step are read at once, or only for a row of the curve, because reading
        would have a GPU wait for the next step.
        """
        return self.device.type != "cuda" or self.ranks.size > 1

    @property
    def bf16(self) -> bool:
        """Whether the model runs under bf16 autocast."""
        return self.params.precision == "bf16"

    @property
    def is_over(self) -> bool:
        """Whether no step is left to take."""
        progress = self.train_state.progress
        return progress.step >= self.plan.params.steps or progress.stopped_early

    def advance(self, curve: MetricsLog, stop: GracefulStop) -> None:
        """Takes the steps that are left."""
        progress = self.train_state.progress
        bar = tqdm(
            total=self.plan.params.steps,
            initial=progress.step,
            desc="train",
            unit="step",
            disable=None if self.ranks.is_first else True,
        )
        whole = progress.step
        try:
            with bar, BatchQueue(self.draw, device=self.device, last=self.params.steps) as batches:
                self.begin(batches)
                while not self.is_over:
                    curve.start()
                    tokens = self.take_step(progress.step + 1, batches)
                    curve.count(tokens)
                    self.after_step(curve)
                    whole = progress.step
                    bar.set_postfix_str(
                        f"loss {self.loss:.3f}, {curve.tokens_per_second:,.0f} tokens/s", refresh=False
                    )
                    bar.total = self.plan.params.steps
                    bar.update()
                    self.end_if_asked(curve, stop)
        except (RuntimeError, MemoryError) as error:
            is_lost = isinstance(error, RuntimeError) and is_lost_peer(error)
            if is_lost and whole == progress.step:
                self.save(curve)
            remedy = "halve train.micro_batch and double train.grad_accum_steps: the batch stays the same"
            if fault := memory_fault(error, where=f"train step {progress.step + 1}", remedy=remedy):
                raise UserError(fault) from error
            raise

    def begin(self, batches: BatchQueue) -> None:
        """Makes the model ready to learn, together with the other ranks.

        DistributedDataParallel lays out its exchange anew after its first backward pass. One whose gradient
        is dropped lets every step, of a run and of one that goes on, add up in the same order.
        """
        self.train_state.model.train()
        if self.params.compile and not self.is_over:
            compile_model(
                cast("Conformer", self.train_state.model),
                length=self.params.seq_len,
                device=self.device,
                rehearse=self.rehearse,
            )
        if self.ranks.size > 1 and not self.is_over:
            self.shared = self.ranks.shared(self.train_state.model, self.device)
            if self.shared is not self.train_state.model:
                self.accumulate(self.train_state.progress.step, batches)
        if self.params.cuda_graphs and self.device.type == "cuda" and not self.is_over:
            passes = partial(add_gradient, self.train_state.model, bf16=self.bf16)
            shape = self.micro_batch_shape
            told = len(self.conditions.tables.names) if self.conditions else 0
            self.add = recorded_or_plain(
                passes, shape=shape, pad_id=self.pad_id, device=self.device, conditions=told
            )

    @property
    def micro_batch_shape(self) -> tuple[int, int]:
        """Windows and tokens of a forward pass."""
        part = self.ranks.share(self.params)
        return part.windows // part.micro_batches, self.params.seq_len

    def rehearse(self) -> None:
        """A forward and a backward pass of the shapes of a micro-batch, whose gradient is dropped."""
        input_ids = torch.full(self.micro_batch_shape, self.pad_id, device=self.device)
        add_gradient(self.train_state.model, input_ids, input_ids, bf16=self.bf16)
        self.train_state.model.zero_grad(set_to_none=True)

    def end_if_asked(self, curve: MetricsLog, stop: GracefulStop) -> None:
        """Ends the run with a checkpoint, on all ranks, where one of them was asked to stop."""
        (asked,) = self.ranks.total(stop.reason is not None)
        if asked:
            self.save(curve)
            self.ranks.total(0)  # nobody leaves before that: torchrun ends all others once one has ended
            stopped = stop.interrupted(self.train_state.progress.step)
            raise self.ranks.ended(stopped, stopped.exit_status)

    def take_step(self, step: int, batches: BatchQueue) -> int:
        """One update of the weights; returns its targets.

        Raises:
            UserError: when loss or gradient is not finite, or the loss has exploded, of this step or, where
                not each step is read, of one since the last row. Nothing is saved from such a step on; where
                each is read, the weights are those of the step before.
        """
        params, ranks = self.plan.params, self.ranks
        nlls, tokens = self.accumulate(step, batches)
        if ranks.size > 1:
            loss_sum, count = ranks.total(sum(map(float, nlls)), tokens)
            nlls, tokens = [torch.tensor(loss_sum, dtype=torch.float64)], int(count)
        grad_norm = clip_gradient(self.train_state.learning, params.clip_norm, divisor=tokens / ranks.size)
        self.unread.append(StepFigures(step, tokens, nlls, grad_norm))
        if self.reads_each_step or self.is_row_due(step):
            self.read()
        self.share = learning_rate_share(step, params)
        set_learning_rate(self.train_state.optimizers, self.share)
        for optimizer in self.train_state.optimizers:
            optimizer.step()
        self.train_state.progress.count_step(tokens)
        return tokens

    def read(self) -> None:
        """Counts the losses of the steps that are not read yet, and looks whether they are numbers.

        Raises:
            UserError: as `take_step`.
        """
        for figures, (loss_sum, grad_norm) in read_figures(self.unread, at_once=not self.reads_each_step):
            loss = loss_sum / figures.tokens
            if not (math.isfinite(loss_sum) and math.isfinite(grad_norm)):
                got = f"loss {loss:g} and gradient norm {grad_norm:g}"
                raise self.diverged(figures.step, "loss and gradient must be finite", got)
            if loss > MAX_LOSS:
                rule = f"loss must stay below {MAX_LOSS:g} nats per token"
                raise self.diverged(figures.step, rule, f"{loss:g}")
            self.train_state.progress.add_loss(loss_sum, figures.tokens)
            self.loss, self.grad_norm = loss, grad_norm
        self.unread.clear()

    def draw(self, step: int) -> tuple[NDArray[np.int64], ...]:
        """This rank's windows of a step, their targets, and what is told of them where something is."""
        part, seed = self.ranks.share(self.params), self.params.seed
        windows = draw_windows(
            self.train_split,
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
        """The gradient of a step, averaged over the ranks; returns this rank's summed nlls and targets."""
        part, batch = self.ranks.share(self.params), batches.take(step)
        self.train_state.model.zero_grad(set_to_none=not isinstance(self.add, RecordedGradient))
        nlls = accumulate_gradient(
            self.shared,
            batch,
            micro_batches=part.micro_batches,
            first_micro_batch=part.first_micro_batch,
            seed=self.params.seed,
            step=step,
            device=self.device,
            bf16=self.bf16,
            add=self.add,
        )
        if self.ranks.size > 1 and self.shared is self.train_state.model:
            self.ranks.average(self.train_state.learning)
        return nlls, batch.tokens

    def is_row_due(self, step: int) -> bool:
        """Whether the curve has a row of this step, by the plan at hand."""
        return self.is_validation_due(step) or step % self.params.log_every == 0

    def is_validation_due(self, step: int) -> bool:
        """Whether this step is validated."""
        return step >= self.plan.params.steps or step % self.params.validate_every == 0

    def after_step(self, curve: MetricsLog) -> None:
        """Validates, writes a row and a checkpoint, where each is due."""
        params, progress = self.params, self.train_state.progress
        step = progress.step
        self.plan.follow(step, is_row_due=self.is_row_due(step), ranks=self.ranks)
        is_validated = self.is_validation_due(step)
        nll = self.validate() if is_validated else None
        if self.is_row_due(step):
            self.read()
            rate = params.learning_rate * self.share
            curve.append(
                MetricsRow(step, progress.tokens, progress.close_interval(), rate, self.grad_norm, nll)
            )
        if is_validated or step % params.checkpoint_every == 0:
            self.save(curve)

    def save(self, curve: MetricsLog) -> None:
        """Leaves a checkpoint of this step.

        Raises:
            UserError: as `read`, and when a weight is not finite; what was saved before stays the newest.
        """
        self.read()
        with self.plan.timed("checkpoint"):
            weights = self.train_state.weights()
            if not all(bool(weight.isfinite().all()) for weight in weights.values()):
                rule = "weights must be finite"
                raise self.diverged(self.train_state.progress.step, rule, "NaN or infinity")
            self.train_state.save(curve.text, weights)

    def validate(self) -> float:
        """Scores the validation split, keeps the weights where they are the best, may end the run early.

        Raises:
            UserError: when the score is not finite.
        """
        params, progress = self.params, self.train_state.progress
        with self.plan.timed("validation"):
            nll = validation_nll(
                self.train_state.model,
                self.validation_split,
                seq_len=params.seq_len,
                batch=params.micro_batch,
                pad_id=self.pad_id,
                device=self.device,
                bf16=self.bf16,
                ranks=self.ranks,
            )
        if not math.isfinite(nll):
            raise self.diverged(progress.step, "validation nll must be finite", f"{nll:g}")
        self.train_state.count_validation(nll)
        if params.early_stopping is not None and progress.validations_without_better >= params.early_stopping:
            progress.stopped_early = progress.step < self.plan.params.steps
        return nll

    def diverged(self, step: int, rule: str, got: str) -> BaseException:
        """What to raise at a step that gave no number, which all ranks see."""
        saved = self.train_state.saved_step
        last = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was due yet"
        remedy = f"lower train.learning_rate (now {self.params.learning_rate:g}) or train.clip_norm; {last}"
        return self.ranks.ended(UserError(Fault(f"train step {step}", rule, got, remedy)), status=1)

    def result(self, curve: Path) -> TrainingResult:
        """What a finished run hands back."""
        progress = self.train_state.progress
        metrics = {
            "steps": progress.step,
            "tokens": progress.tokens,
            "epochs": progress.tokens / self.train_split.num_tokens,
            "parameters": num_parameters(self.train_state.model),
            "train_loss": progress.train_loss,
            "best": {"step": progress.best_step, "validation_nll": progress.best_nll},
            "last": {"validation_nll": progress.validation_nll},
            "stopped_early": progress.stopped_early,
        }
        best = {name: value.clone() for name, value in self.train_state.best.items()}
        return TrainingResult(
            best_state=best, last_state=self.train_state.weights(), metrics=metrics, curve=curve
        )
