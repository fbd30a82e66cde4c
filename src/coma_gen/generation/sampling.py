"""Which of the likely tokens may be drawn: temperature, top-k, top-p and min-p, and a draw that repeats.

The filters act in the order temperature, top-k, top-p, min-p, each on what the ones before left, and each
keeps at least the likeliest token. Sources: top-k, Fan et al. 2018 (arXiv 1805.04833); top-p, Holtzman et al.
2020 (arXiv 1904.09751); min-p, Nguyen et al. 2024 (arXiv 2407.01082).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.config.schema import SampleParams
from coma_gen.core.errors import Fault

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SamplingParams:
    """How a token is chosen.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: keep the k likeliest; None keeps all. Equals at the border are kept by the lower id.
        top_p: keep the fewest likeliest tokens whose probabilities reach this sum; None keeps all.
        min_p: keep tokens at least this share as likely as the likeliest; None keeps all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    @classmethod
    def of(cls, params: SampleParams) -> SamplingParams:
        """The choice that params.yaml asks for."""
        return cls(params.temperature, params.top_k, params.top_p, params.min_p)

    def faults(self) -> list[Fault]:
        """What is out of range."""
        ranges = {
            "temperature": (0 <= self.temperature <= 100, "between 0 and 100"),
            "top_k": (self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p is None or 0 <= self.min_p <= 1, "between 0 and 1"),
        }
        return [
            Fault(name, f"must be {rule}", str(getattr(self, name)))
            for name, (good, rule) in ranges.items()
            if not good
        ]


def probabilities(
    logits: npt.NDArray[np.floating], allowed: npt.NDArray[np.bool_] | None, choice: SamplingParams
) -> Probabilities:
    """The distributions that tokens are drawn from; a row depends on its own logits alone.

    Args:
        logits: (..., V) finite scores.
        allowed: (..., V) tokens that may be drawn at all, at least one of each row; None allows all.
        choice: the filters.

    Returns:
        (..., V) float64, each row summing to one, zero where a token is filtered out.
    """
    scores = logits.astype(np.float64)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    if choice.temperature == 0:
        only = np.zeros_like(scores)
        np.put_along_axis(only, scores.argmax(-1, keepdims=True), 1.0, -1)
        return only
    with np.errstate(over="ignore"):  # at a temperature next to 0 all but the likeliest become -inf
        weights = np.exp((scores - scores.max(-1, keepdims=True)) / choice.temperature)
    if choice.top_k is not None or choice.top_p is not None:
        weights = np.where(_likeliest(weights, choice), weights, 0.0)
    if choice.min_p is not None:
        weights = np.where(weights >= choice.min_p * weights.max(-1, keepdims=True), weights, 0.0)
    kept: Probabilities = weights / weights.sum(-1, keepdims=True)
    return kept


def _likeliest(weights: Probabilities, choice: SamplingParams) -> npt.NDArray[np.bool_]:
    """(..., V) which weights top-k and then top-p leave."""
    order = np.argsort(-weights, axis=-1, kind="stable")
    falling = np.take_along_axis(weights, order, -1)
    stays = np.zeros(weights.shape, bool)
    stays[..., : choice.top_k] = True
    if choice.top_p is not None:
        reached = np.cumsum(np.where(stays, falling, 0.0), -1)
        enough = choice.top_p * reached[..., -1:] * (1 - 1e-12)
        stays[..., 1:] &= reached[..., :-1] < enough
    kept = np.zeros(weights.shape, bool)
    np.put_along_axis(kept, order, stays, -1)
    return kept


def sample_from(distribution: Probabilities, uniform: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(...) the tokens at `uniform` (...) in [0, 1) of cumulative distributions (..., V); one of probability
    zero is never drawn.
    """
    cumulative = np.cumsum(distribution, -1)
    target = np.asarray(uniform)[..., None] * cumulative[..., -1:]
    last = distribution.shape[-1] - 1 - (distribution > 0)[..., ::-1].argmax(-1)
    return np.asarray(np.minimum((cumulative <= target).sum(-1), last), np.int64)
