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
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from coma_gen.config.schema import TrainParams
from coma_gen.core.errors import Fault, UserError, memory_fault
from coma_gen.model.compile import compile_model
from coma_gen.model.conformer import Conformer, num_parameters
from coma_gen.model.device import deterministic
from coma_gen.shards.read import ShardedSplit
from coma_gen.shards.windows import draw_windows
from coma_gen.training.distributed import SINGLE_PROCESS, Distributed, is_lost_peer
from coma_gen.training.gradients import accumulate_gradient, clip_gradient
from coma_gen.training.loss import sum_nll, validation_nll
from coma_gen.training.metrics_log import MetricsLog, MetricsRow
from coma_gen.training.optimizer import set_learning_rate
from coma_gen.training.progress import TrainingResult
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
    place = ranks.device(device)
    lock = exclusive_run_lock(resume) if ranks.is_first else nullcontext()
    with lock, deterministic(threads, place), GracefulStop(patient=ranks.size > 1) as stop:
        train_state = TrainState(model.to(place), params, resume=resume, key=key, ranks=ranks)
        run = _TrainLoop(
            train_state=train_state,
            shared=train_state.model,
            train_split=train_split,
            validation_split=validation_split,
            shifts=shifts if params.augment else None,
            params=params,
            device=place,
            pad_id=pad_id,
            ranks=ranks,
        )
        folders = (resume, events) if ranks.is_first else (None, None)
        with MetricsLog(folders[0], train_state.restore(), events=folders[1]) as curve:
            run.advance(curve, stop)
        return run.result(curve.path) if ranks.is_first else None


@dataclass
class _TrainLoop:
    """A run between two interruptions.

    Attributes:
        train_state: what learns.
        shared: its model, as all ranks train it.
        ranks: those who do.
    """

    train_state: TrainState
    shared: nn.Module
    train_split: ShardedSplit
    validation_split: ShardedSplit
    shifts: NDArray[np.uint16] | None
    params: TrainParams
    device: torch.device
    pad_id: int
    ranks: Distributed

    @property
    def bf16(self) -> bool:
        """Whether the model runs under bf16 autocast."""
        return self.params.precision == "bf16"

    @property
    def is_over(self) -> bool:
        """Whether no step is left to take."""
        progress = self.train_state.progress
        return progress.step >= self.params.steps or progress.stopped_early

    def advance(self, curve: MetricsLog, stop: GracefulStop) -> None:
        """Takes the steps that are left."""
        params, progress = self.params, self.train_state.progress
        bar = tqdm(
            total=params.steps,
            initial=progress.step,
            desc="train",
            unit="step",
            disable=None if self.ranks.is_first else True,
        )
        whole = progress.step
        try:
            with bar:
                self.begin()
                while not self.is_over:
                    curve.start()
                    loss, tokens, grad_norm = self.take_step(progress.step + 1)
                    curve.count(tokens)
                    self.after_step(curve, grad_norm)
                    whole = progress.step
                    bar.set_postfix_str(
                        f"loss {loss:.3f}, {curve.tokens_per_second:,.0f} tokens/s", refresh=False
                    )
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

    def begin(self) -> None:
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
                self.accumulate(self.train_state.progress.step)

    def rehearse(self) -> None:
        """A forward and a backward pass of the shapes of a micro-batch, whose gradient is dropped."""
        part = self.ranks.share(self.params)
        shape = (part.windows // part.micro_batches, self.params.seq_len)
        input_ids = torch.full(shape, self.pad_id, device=self.device)
        sum_nll(self.train_state.model, input_ids, input_ids, bf16=self.bf16).backward()  # type: ignore[no-untyped-call]
        self.train_state.model.zero_grad(set_to_none=True)

    def end_if_asked(self, curve: MetricsLog, stop: GracefulStop) -> None:
        """Ends the run with a checkpoint, on all ranks, where one of them was asked to stop."""
        (asked,) = self.ranks.total(stop.reason is not None)
        if asked:
            self.save(curve)
            self.ranks.total(0)  # nobody leaves before that: torchrun ends all others once one has ended
            stopped = stop.interrupted(self.train_state.progress.step)
            raise self.ranks.ended(stopped, stopped.exit_status)

    def take_step(self, step: int) -> tuple[float, int, float]:
        """One update of the weights; returns nats per token, targets, and the norm before clipping.

        Raises:
            UserError: when loss or gradient is not finite, or the loss has exploded; the weights are still
                those of the step before.
        """
        params = self.params
        loss_sum, count = self.ranks.total(*self.accumulate(step))
        tokens = int(count)
        grad_norm = clip_gradient(
            self.train_state.learning, params.clip_norm, divisor=tokens / self.ranks.size
        )
        if not (math.isfinite(loss_sum) and math.isfinite(grad_norm)):
            got = f"loss {loss_sum / tokens:g} and gradient norm {grad_norm:g}"
            raise self.diverged(step, "loss and gradient must be finite", got)
        if loss_sum / tokens > MAX_LOSS:
            got = f"{loss_sum / tokens:g}"
            raise self.diverged(step, f"loss must stay below {MAX_LOSS:g} nats per token", got)
        set_learning_rate(self.train_state.optimizers, learning_rate_share(step, params))
        for optimizer in self.train_state.optimizers:
            optimizer.step()
        self.train_state.progress.count_step(loss_sum, tokens)
        return loss_sum / tokens, tokens, grad_norm

    def accumulate(self, step: int) -> tuple[float, int]:
        """The gradient of a step, averaged over the ranks; returns this rank's summed nll and targets."""
        params, part = self.params, self.ranks.share(self.params)
        inputs, targets = draw_windows(
            self.train_split,
            seed=params.seed,
            step=step,
            batch=part.windows,
            seq_len=params.seq_len,
            shifts=self.shifts,
            pad_id=self.pad_id,
            first=part.first,
        )
        self.train_state.model.zero_grad(set_to_none=True)
        summed = accumulate_gradient(
            self.shared,
            inputs,
            targets,
            micro_batches=part.micro_batches,
            first_micro_batch=part.first_micro_batch,
            seed=params.seed,
            step=step,
            device=self.device,
            bf16=self.bf16,
        )
        if self.ranks.size > 1 and self.shared is self.train_state.model:
            self.ranks.average(self.train_state.learning)
        return summed

    def after_step(self, curve: MetricsLog, grad_norm: float) -> None:
        """Validates, writes a row and a checkpoint, where each is due."""
        params, progress = self.params, self.train_state.progress
        is_validated = progress.step == params.steps or progress.step % params.validate_every == 0
        nll = self.validate() if is_validated else None
        if is_validated or progress.step % params.log_every == 0:
            rate = params.learning_rate * learning_rate_share(progress.step, params)
            curve.append(
                MetricsRow(progress.step, progress.tokens, progress.close_interval(), rate, grad_norm, nll)
            )
        if is_validated or progress.step % params.checkpoint_every == 0:
            self.save(curve)

    def save(self, curve: MetricsLog) -> None:
        """Leaves a checkpoint of this step.

        Raises:
            UserError: when a weight is not finite; what was saved before stays the newest.
        """
        if not all(bool(weight.isfinite().all()) for weight in self.train_state.learning):
            raise self.diverged(self.train_state.progress.step, "weights must be finite", "NaN or infinity")
        self.train_state.save(curve.text)

    def validate(self) -> float:
        """Scores the validation split, keeps the weights where they are the best, may end the run early.

        Raises:
            UserError: when the score is not finite.
        """
        params, progress = self.params, self.train_state.progress
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
            progress.stopped_early = progress.step < params.steps
        return nll

    def diverged(self, step: int, rule: str, got: str) -> BaseException:
        """What to raise at a step that gave no number, which all ranks see."""
        saved = self.train_state.saved_step
        kept = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was due yet"
        remedy = f"lower train.learning_rate (now {self.params.learning_rate:g}) or train.clip_norm; {kept}"
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
