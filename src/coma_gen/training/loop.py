"""The training loop: steps, validation, the curve, checkpoints, and going on after an interruption.

Every step is a function of (weights, optimizer state, step number): its windows come from
`draw_windows(seed, step)` and its dropout from a seed made of (seed, step, micro-batch). So a run that was
stopped anywhere, and started again, takes the same steps as one that was not, to the last bit. What happens
between two checkpoints may happen twice, with one result.

    a step   windows -> micro-batches -> summed nll / all targets of the step -> clip -> AdamW
    then     validation?  ->  row of the curve?  ->  checkpoint?  ->  asked to stop?
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from coma_gen.errors import Fault, UserError
from coma_gen.model.conformer import num_parameters
from coma_gen.model.device import choose_device, deterministic
from coma_gen.params.sections import TrainParams
from coma_gen.shards.read import ShardedSplit
from coma_gen.shards.windows import draw_windows
from coma_gen.training.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from coma_gen.training.curve import HEADER, Curve, Row
from coma_gen.training.gradient import accumulate_gradient, clip_gradient
from coma_gen.training.interruption import StopRequest
from coma_gen.training.likelihood import split_nll
from coma_gen.training.lock import sole_trainer
from coma_gen.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from coma_gen.training.progress import Progress, TrainingResult
from coma_gen.training.schedule import learning_rate


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
) -> TrainingResult:
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

    Raises:
        UserError: no such device; an empty split; a resume folder of another key, with damaged checkpoints
            only; a loss or gradient that is not finite (the checkpoints
            stay).
        TrainingInterrupted: after SIGINT or SIGTERM, with a checkpoint of the last whole step.
    """
    for name, split in (("train", train_split), ("validation", validation_split)):
        if split.num_tokens < 2:
            raise UserError(
                Fault(
                    f"{name} split", "must have at least one token to predict", f"{split.num_tokens} tokens"
                )
            )
    place = choose_device(device)
    with sole_trainer(resume), deterministic(threads), StopRequest() as stop:
        run = _Run(
            model=model.to(place),
            train_split=train_split,
            validation_split=validation_split,
            shifts=shifts if params.augment else None,
            params=params,
            device=place,
            pad_id=pad_id,
            resume=resume,
            key=key,
        )
        with Curve(resume, run.restore()) as curve:
            run.advance(curve, stop)
        return run.result(curve.path)


class _Run:
    """A run between two interruptions."""

    def __init__(
        self,
        *,
        model: nn.Module,
        train_split: ShardedSplit,
        validation_split: ShardedSplit,
        shifts: NDArray[np.uint16] | None,
        params: TrainParams,
        device: torch.device,
        pad_id: int,
        resume: Path,
        key: str,
    ) -> None:
        self.model, self.train_split, self.validation_split, self.shifts = (
            model,
            train_split,
            validation_split,
            shifts,
        )
        self.params, self.device, self.pad_id, self.resume, self.key = params, device, pad_id, resume, key
        self.bf16 = params.precision == "bf16"
        self.optimizer = build_optimizer(model, params)
        self.learning = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.progress = Progress()
        self.best: Mapping[str, Tensor] = {}
        self.saved_step = 0

    def restore(self) -> str:
        """Takes up the newest checkpoint, if there is one; returns the curve up to it."""
        checkpoint = latest_checkpoint(self.resume, key=self.key)
        if checkpoint is None:
            return HEADER
        self.model.load_state_dict(dict(checkpoint.weights))
        restore_optimizer(self.optimizer, self.model, checkpoint.optimizer)
        self.progress = Progress(**checkpoint.progress)
        self.best, self.saved_step = checkpoint.best, checkpoint.step
        return checkpoint.curve

    def save(self, curve: Curve) -> None:
        """Writes a checkpoint of this step, unless there is one."""
        if self.progress.step == self.saved_step:
            return
        checkpoint = Checkpoint(
            step=self.progress.step,
            weights=self.model.state_dict(),
            best=self.best,
            optimizer=optimizer_tensors(self.optimizer, self.model),
            progress=asdict(self.progress),
            curve=curve.text,
        )
        save_checkpoint(self.resume, checkpoint, key=self.key)
        self.saved_step = self.progress.step

    def advance(self, curve: Curve, stop: StopRequest) -> None:
        """Takes the steps that are left."""
        params, progress = self.params, self.progress
        self.model.train()
        with tqdm(total=params.steps, initial=progress.step, desc="train", unit="step", disable=None) as bar:
            while progress.step < params.steps and not progress.stopped_early:
                started = time.perf_counter()
                loss, tokens, grad_norm = self.take_step(progress.step + 1)
                curve.count(tokens, started)
                self.after_step(curve, grad_norm)
                bar.set_postfix_str(
                    f"loss {loss:.3f}, {curve.tokens_per_second:,.0f} tokens/s", refresh=False
                )
                bar.update()
                if stop.reason is not None:
                    self.save(curve)
                    raise stop.interrupted(progress.step)

    def take_step(self, step: int) -> tuple[float, int, float]:
        """One update of the weights; returns nats per token, targets, and the norm before clipping.

        Raises:
            UserError: when loss or gradient is not finite; the weights are still those of the step before.
        """
        params = self.params
        inputs, targets = draw_windows(
            self.train_split,
            seed=params.seed,
            step=step,
            batch=params.micro_batch * params.grad_accum_steps,
            seq_len=params.seq_len,
            shifts=self.shifts,
            pad_id=self.pad_id,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum, tokens = accumulate_gradient(
            self.model,
            inputs,
            targets,
            micro_batches=params.grad_accum_steps,
            seed=params.seed,
            step=step,
            device=self.device,
            bf16=self.bf16,
        )
        grad_norm = clip_gradient(self.learning, params.clip_norm)
        if not (math.isfinite(loss_sum) and math.isfinite(grad_norm)):
            got = f"loss {loss_sum / tokens:g} and gradient norm {grad_norm:g}"
            raise self.diverged(step, "loss and gradient must be finite", got)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, params)
        self.optimizer.step()
        self.progress.count_step(loss_sum, tokens)
        return loss_sum / tokens, tokens, grad_norm

    def after_step(self, curve: Curve, grad_norm: float) -> None:
        """Validates, writes a row and a checkpoint, where each is due."""
        params, progress = self.params, self.progress
        is_validated = progress.step == params.steps or progress.step % params.validate_every == 0
        nll = self.validate() if is_validated else None
        if is_validated or progress.step % params.log_every == 0:
            rate = learning_rate(progress.step, params)
            curve.append(Row(progress.step, progress.tokens, progress.close_interval(), rate, grad_norm, nll))
        if is_validated or progress.step % params.checkpoint_every == 0:
            self.save(curve)

    def validate(self) -> float:
        """Scores the validation split, keeps the weights where they are the best, may end the run early.

        Raises:
            UserError: when the score is not finite.
        """
        params, progress = self.params, self.progress
        nll = split_nll(
            self.model,
            self.validation_split,
            seq_len=params.seq_len,
            batch=params.micro_batch,
            pad_id=self.pad_id,
            device=self.device,
            bf16=self.bf16,
        )
        if not math.isfinite(nll):
            raise self.diverged(progress.step, "validation nll must be finite", f"{nll:g}")
        if progress.count_validation(nll):
            self.best = self.weights()
        if params.early_stopping is not None and progress.validations_without_better >= params.early_stopping:
            progress.stopped_early = progress.step < params.steps
        return nll

    def diverged(self, step: int, rule: str, got: str) -> UserError:
        """The error of a step that gave no number."""
        kept = (
            f"the checkpoint of step {self.saved_step} is kept"
            if self.saved_step
            else "no checkpoint was due yet"
        )
        remedy = f"lower train.learning_rate (now {self.params.learning_rate:g}) or train.clip_norm; {kept}"
        return UserError(Fault(f"train step {step}", rule, got, remedy))

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def result(self, curve: Path) -> TrainingResult:
        """What a finished run hands back."""
        progress = self.progress
        metrics = {
            "steps": progress.step,
            "tokens": progress.tokens,
            "epochs": progress.tokens / self.train_split.num_tokens,
            "parameters": num_parameters(self.model),
            "train_loss": progress.train_loss,
            "best": {"step": progress.best_step, "validation_nll": progress.best_nll},
            "last": {"validation_nll": progress.validation_nll},
            "stopped_early": progress.stopped_early,
        }
        best = {name: value.clone() for name, value in self.best.items()}
        return TrainingResult(best_state=best, last_state=self.weights(), metrics=metrics, curve=curve)
