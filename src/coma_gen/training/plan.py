"""Plans the number of steps of a run: `train.steps`, or as many as fit into `train.max_minutes`.

    minutes 0                                                             max_minutes
            | compilation | steps, validations, checkpoints | last validation, checkpoint |
                          '-- measured seconds each: replanned at every row of the curve

The deadline covers all sessions of a run: time spent before an interruption counts. The learning rate follows
the plan, so that it has decayed at the deadline, and the run ends like any other, with a validation and a
model. The result depends on the speed of the machine and is not reproducible.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from coma_gen.config.schema import TrainParams
from coma_gen.training.distributed import Distributed
from coma_gen.training.progress import Progress

WARM_UP_SHARE = 0.1
"""Maximum fraction of the planned steps that warm-up may take."""
LAST_WORK = ("validation", "checkpoint")
"""Work after the last step."""

clock = time.monotonic


class StepPlan:
    """Number of steps of a run, adjusted to its deadline.

    Args:
        params: Optimization settings; `steps` is the upper bound of the plan.
        progress: Progress of the run, which stores the plan and the seconds spent.
        validation_tokens: Number of tokens of the validation split.
    """

    def __init__(self, params: TrainParams, progress: Progress, *, validation_tokens: int) -> None:
        self._params, self._progress = params, progress
        self._started, self._spent_before = clock(), progress.seconds
        step_tokens = params.micro_batch * params.grad_accum_steps * params.seq_len
        self._validation_steps = validation_tokens / step_tokens
        self._first: tuple[int, float] | None = None
        self._seconds: dict[str, float] = {}
        self._outside_steps = 0.0

    @property
    def params(self) -> TrainParams:
        """Settings of the run with the planned steps and warm-up."""
        steps = self._progress.planned_steps
        if steps is None:
            return self._params
        warm_up = min(self._params.warmup_steps, int(WARM_UP_SHARE * steps))
        return self._params.model_copy(update={"steps": steps, "warmup_steps": warm_up})

    def is_row_due(self, step: int) -> bool:
        """Whether this step gets a row in the curve."""
        return self.is_validation_due(step) or step % self._params.log_every == 0

    def is_validation_due(self, step: int) -> bool:
        """Whether this step is validated."""
        return step >= self.params.steps or step % self._params.validate_every == 0

    @contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Measures the time of work outside of steps, such as a validation."""
        started = clock()
        yield
        self._seconds[work] = clock() - started
        self._outside_steps += self._seconds[work]

    def update(self, step: int, *, ranks: Distributed) -> None:
        """Updates the plan if a row is due or time is up; all ranks must call it after each step."""
        if self._params.max_minutes is None:
            return
        spent = self._spent_before + clock() - self._started
        left = 60.0 * self._params.max_minutes - spent
        (planned,) = ranks.sum_over_ranks(self._plan_steps(step, left) if ranks.is_first else 0)
        self._progress.planned_steps, self._progress.seconds = int(planned), spent

    def _plan_steps(self, step: int, left: float) -> int:
        """Computes the total number of steps, given that `step` are done and `left` seconds remain."""
        now = clock()
        self._first = self._first or (step, now)
        first_step, since = self._first
        if step == first_step:
            return step if left <= 0 else self._progress.planned_steps or self._params.steps
        step_seconds = (now - since - self._outside_steps) / (step - first_step)
        last = sum(self._seconds.get(work, 0.0) for work in LAST_WORK)
        if "validation" not in self._seconds:
            last += step_seconds * self._validation_steps  # upper bound: validation has forward passes only
        if left <= last + step_seconds:
            return step
        if not self.is_row_due(step):
            return self._progress.planned_steps or self._params.steps
        validation = self._seconds.get("validation", step_seconds * self._validation_steps)
        step_seconds += validation / self._params.validate_every
        step_seconds += self._seconds.get("checkpoint", 0.0) / self._params.checkpoint_every
        return min(self._params.steps, step + max(1, int((left - last) / step_seconds)))
