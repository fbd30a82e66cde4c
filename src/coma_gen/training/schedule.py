"""Learning rate schedule: linear warm-up, plateau, decay.

    factor 1 |     .-------.
             |   /          `.
             | /              `.
    end      |/                 `-
             +----+--------+-----+-> step
             0  warmup          steps
                           '-----'  decay_fraction of the steps after the warm-up

With decay_fraction 1 this is the usual cosine (Loshchilov & Hutter 2017) or linear decay (Bergsma et al.
2025, arXiv 2502.15938); with less it is warmup-stable-decay (Hu et al. 2024, arXiv 2404.06395).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from coma_gen.config.schema import TrainParams

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
}
"""Value of `train.schedule` -> remaining fraction as a function of the progress of the decay, 0 to 1."""


def learning_rate_factor(step: int, params: TrainParams) -> float:
    """Returns the learning rate of a step as a fraction of the peak, a function of the step alone.

    Args:
        step: Optimizer step, 1 to `params.steps`.
        params: Optimization settings; the peak is reached at step `warmup_steps`, and the last step has the
            fraction `min_learning_rate_ratio`.
    """
    if step <= params.warmup_steps:
        return step / params.warmup_steps
    decay_steps = max(1.0, (params.steps - params.warmup_steps) * params.decay_fraction)
    progress = min(1.0, max(0.0, 1.0 - (params.steps - step) / decay_steps))
    ratio = params.min_learning_rate_ratio
    return ratio + (1.0 - ratio) * SCHEDULES[params.schedule](progress)
