"""How many steps a run takes: `train.steps`, or as many as `train.max_minutes` have room for.

    minutes 0                                            max_minutes
            | compiling | steps, validations, checkpoints | last ones |
                        '-- so many seconds each: planned anew at every row of the curve

A deadline is over all sessions of a run: the time that was spent before an interruption counts. The learning
rate follows the plan, so that it has decayed when time is up, and the run ends as any other: with a
validation and a model. What comes out depends on the speed of the machine, and so is not the same twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from coma_gen.config.schema import TrainParams
from coma_gen.training.distributed import Distributed
from coma_gen.training.progress import Progress

WARM_UP_SHARE = 0.1
"""Of the steps of a plan, what the warm-up takes of them at most."""
LAST_WORK = ("validation", "checkpoint")
"""What follows the last step."""

clock = time.monotonic


class StepPlan:
    """The steps of a run, its deadline kept.

    Args:
        params: of the run; the plan has no more steps than these.
        progress: of the run; keeps the plan and the seconds that were spent.
        validation_tokens: of the whole validation split.
    """

    def __init__(self, params: TrainParams, progress: Progress, *, validation_tokens: int) -> None:
        self._params, self._progress = params, progress
        self._started, self._spent_before = clock(), progress.seconds
        step_tokens = params.micro_batch * params.grad_accum_steps * params.seq_len
        self._validation_steps = validation_tokens / step_tokens
        self._first: tuple[int, float] | None = None
        self._took: dict[str, float] = {}
        self._beside = 0.0

    @property
    def params(self) -> TrainParams:
        """Those of the run, with the steps and the warm-up that are planned."""
        steps = self._progress.planned_steps
        if steps is None:
            return self._params
        warm_up = min(self._params.warmup_steps, int(WARM_UP_SHARE * steps))
        return self._params.model_copy(update={"steps": steps, "warmup_steps": warm_up})

    def is_row_due(self, step: int) -> bool:
        """Whether the curve has a row of this step."""
        return self.is_validation_due(step) or step % self._params.log_every == 0

    def is_validation_due(self, step: int) -> bool:
        """Whether this step is validated."""
        return step >= self.params.steps or step % self._params.validate_every == 0

    @contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Takes the time of work that is no step, such as a validation."""
        started = clock()
        yield
        self._took[work] = clock() - started
        self._beside += self._took[work]

    def follow(self, step: int, *, ranks: Distributed) -> None:
        """Plans anew after a step, where a row is due or time is up. To be called by all ranks, each step."""
        if self._params.max_minutes is None:
            return
        spent = self._spent_before + clock() - self._started
        left = 60.0 * self._params.max_minutes - spent
        (planned,) = ranks.total(self._planned(step, left) if ranks.is_first else 0)
        self._progress.planned_steps, self._progress.seconds = int(planned), spent

    def _planned(self, step: int, left: float) -> int:
        """Steps in all, after `step` of them and with `left` seconds to go."""
        now = clock()
        self._first = self._first or (step, now)
        first_step, since = self._first
        if step == first_step:
            return step if left <= 0 else self._progress.planned_steps or self._params.steps
        each = (now - since - self._beside) / (step - first_step)
        last = sum(self._took.get(work, 0.0) for work in LAST_WORK)
        if "validation" not in self._took:
            last += each * self._validation_steps  # forward passes alone are not slower than that
        if left <= last + each:
            return step
        if not self.is_row_due(step):
            return self._progress.planned_steps or self._params.steps
        each += self._took.get("validation", each * self._validation_steps) / self._params.validate_every
        each += self._took.get("checkpoint", 0.0) / self._params.checkpoint_every
        return min(self._params.steps, step + max(1, int((left - last) / each)))
