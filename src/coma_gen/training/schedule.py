"""How the learning rate goes with the steps: a linear warm-up, a plateau, then a decay.

    share 1 |     .-------.
            |   /          `.
            | /              `.
    end     |/                 `-
            +----+--------+-----+-> step
            0  warmup          steps
                          '-----'  decay_fraction of what follows the warm-up

A decay over all of it is the usual cosine (Loshchilov & Hutter 2017) or a line to zero (Bergsma et al. 2025,
arXiv 2502.15938); one over a part of it is warm-up-stable-decay (Hu et al. 2024, arXiv 2404.06395).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from coma_gen.config.schema import TrainParams

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
}
"""By the names that `train.schedule` may have: what is left of a decay at a progress of 0 to 1."""


def learning_rate_share(step: int, params: TrainParams) -> float:
    """Share of the peak learning rate at optimizer step `step`, a function of nothing but the step.

    Args:
        step: 1 to `params.steps`; the first update is step 1.
        params: the peak is reached at step `warmup_steps`; the last step has `min_learning_rate_ratio` of it.
    """
    if step <= params.warmup_steps:
        return step / params.warmup_steps
    decay_steps = max(1.0, (params.steps - params.warmup_steps) * params.decay_fraction)
    progress = min(1.0, max(0.0, 1.0 - (params.steps - step) / decay_steps))
    ratio = params.min_learning_rate_ratio
    return ratio + (1.0 - ratio) * SCHEDULES[params.schedule](progress)
