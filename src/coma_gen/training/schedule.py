"""The learning rate of a step: a linear warm-up, then half a cosine (Loshchilov & Hutter 2017)."""

from __future__ import annotations

import math

from coma_gen.config.schema import TrainParams


def learning_rate(step: int, params: TrainParams) -> float:
    """The learning rate of optimizer step `step`, a function of nothing but the step.

        peak |     .--.
             |   /      `.
             | /           `.
        end  |/               `-
             +----+------------+-> step
             0  warmup       steps

    Args:
        step: 1 to `params.steps`; the first update is step 1.
        params: `learning_rate` is the peak, reached at step `warmup_steps`; the last step has
            `learning_rate * min_learning_rate_ratio`.
    """
    if step <= params.warmup_steps:
        return params.learning_rate * step / params.warmup_steps
    progress = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    share = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    ratio = params.min_learning_rate_ratio
    return params.learning_rate * (ratio + (1.0 - ratio) * share)
