"""Sampling: temperature, top-k, top-p and min-p, and reproducible draws.

The filters apply in the order temperature, top-k, top-p, min-p, each to what the previous ones left, and each
retains at least the most likely token. Sources: top-k, Fan et al. 2018 (arXiv 1805.04833); top-p, Holtzman et
al. 2020 (arXiv 1904.09751); min-p, Nguyen et al. 2024 (arXiv 2407.01082).

The truncation filters (the last three) apply within types of token: probability cut from pitches goes to
other pitches, and the probability of pitches against positions or bars stays the model's. Types that are not
named are sampled without truncation. Durations, for example, have a long tail that contains most sustained
notes: cutting it shortens the notes, the model then continues in the style of short notes, and the music
thins out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.config.schema import SampleParams
from coma_gen.core.errors import Fault
from coma_gen.tokenizer.vocabulary import Vocabulary

Probabilities = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]
TYPES = {
    "bar": ("Bar",),
    "position": ("Position",),
    "pitch": ("Pitch",),
    "velocity": ("Velocity",),
    "duration": ("Duration",),
    "pedal": ("Pedal", "PedalOff"),
}
"""Names for the setting `truncate` -> types of base token."""
TRUNCATED, TOP_P = ("pitch",), 0.85
"""Default truncation. On 64 test prompts the demo's model then plays 7.0 notes per second of 0.57 s each
(real music: 7.1 of 0.97 s); with all types truncated at 0.95 it played 10.6 of 0.30 s. Truncating positions
as well favors short steps: 10.2 notes per second on validation, against 8.8 without and 8.7 in real music.
"""


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters.

    Attributes:
        temperature: Divisor of the logits; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; None keeps all. Ties are broken by the lower id.
        top_p: Keep the smallest set of most likely tokens whose probabilities reach this sum; None keeps all.
        min_p: Minimum probability of a token relative to the most likely one; None keeps all.
        truncate: Types of token (keys of `TYPES`) within which top_k, top_p and min_p apply.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    truncate: Sequence[str] = TRUNCATED

    @classmethod
    def of(cls, params: SampleParams) -> SamplingParams:
        """Builds the sampling parameters from the section of params.yaml."""
        return cls(params.temperature, params.top_k, params.top_p, params.min_p, params.truncate)

    def parts(self, vocabulary: Vocabulary) -> list[Ids]:
        """Returns the ids of each truncated type; a byte-pair id has the type of its first base token."""
        types = [base_type for name in self.truncate for base_type in TYPES[name]]
        first = np.array([base_types[0] if base_types else "" for base_types in vocabulary.token_types])
        parts = [np.flatnonzero(first == base_type) for base_type in types]
        return [ids for ids in parts if len(ids) > 1]

    def faults(self) -> list[Fault]:
        """Lists the parameters that are out of range."""
        ranges = {
            "temperature": (0 <= self.temperature <= 5, "between 0 and 5"),
            "top_k": (self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (self.min_p is None or 0 <= self.min_p <= 1, "between 0 and 1"),
            "truncate": (
                set(self.truncate) <= set(TYPES) and len(set(self.truncate)) == len(self.truncate),
                f"some of {', '.join(TYPES)}, each once",
            ),
        }
        got = {name: getattr(self, name) for name in ranges} | {"truncate": ", ".join(self.truncate)}
        return [
            Fault(name, f"must be {rule}", str(got[name]))
            for name, (good, rule) in ranges.items()
            if not good
        ]


def probabilities(
    logits: npt.NDArray[np.floating],
    allowed: npt.NDArray[np.bool_] | None,
    sampling: SamplingParams,
    parts: Sequence[Ids] | None = None,
) -> Probabilities:
    """Computes the distributions to sample from; each row depends on its own logits only.

    Args:
        logits: (..., V) finite scores.
        allowed: (..., V) tokens that may be sampled, at least one per row; None allows all.
        sampling: Sampling parameters.
        parts: Ids of each truncated type (`SamplingParams.parts`); None truncates all ids as one type.

    Returns:
        (..., V) float64; each row sums to one, and filtered tokens are zero.
    """
    scores = logits.astype(np.float64)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    if sampling.temperature == 0:
        only = np.zeros_like(scores)
        np.put_along_axis(only, scores.argmax(-1, keepdims=True), 1.0, -1)
        return only
    with np.errstate(over="ignore"):  # at a temperature near 0 all but the most likely become -inf
        weights = np.exp((scores - scores.max(-1, keepdims=True)) / sampling.temperature)
    if (sampling.top_k, sampling.top_p, sampling.min_p) != (None, None, None):
        for ids in [np.arange(weights.shape[-1])] if parts is None else parts:
            weights[..., ids] = _truncate(np.take(weights, ids, axis=-1), sampling)
    normalized: Probabilities = weights / weights.sum(-1, keepdims=True)
    return normalized


def _truncate(weights: Probabilities, sampling: SamplingParams) -> Probabilities:
    """Applies the filters to weights (..., K) and preserves their sum, including a sum of zero."""
    truncated = weights
    if sampling.top_k is not None or sampling.top_p is not None:
        truncated = np.where(_compute_top_mask(weights, sampling), weights, 0.0)
    if sampling.min_p is not None:
        truncated = np.where(truncated >= sampling.min_p * truncated.max(-1, keepdims=True), truncated, 0.0)
    left = truncated.sum(-1, keepdims=True)
    return np.asarray(
        truncated * (weights.sum(-1, keepdims=True) / np.where(left > 0, left, 1.0)), np.float64
    )


def _compute_top_mask(weights: Probabilities, sampling: SamplingParams) -> npt.NDArray[np.bool_]:
    """Returns the mask (..., V) of the weights that top-k and then top-p retain."""
    order = np.argsort(-weights, axis=-1, kind="stable")
    falling = np.take_along_axis(weights, order, -1)
    stays = np.zeros(weights.shape, bool)
    stays[..., : sampling.top_k] = True
    if sampling.top_p is not None:
        reached = np.cumsum(np.where(stays, falling, 0.0), -1)
        enough = sampling.top_p * reached[..., -1:] * (1 - 1e-12)
        stays[..., 1:] &= reached[..., :-1] < enough
    mask = np.zeros(weights.shape, bool)
    np.put_along_axis(mask, order, stays, -1)
    return mask


def sample_from(distribution: Probabilities, uniform: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Samples tokens (...) from distributions (..., V) by inverse transform of `uniform` (...) in [0, 1).

    A token of probability zero is never sampled.
    """
    cumulative = np.cumsum(distribution, -1)
    target = np.asarray(uniform)[..., None] * cumulative[..., -1:]
    last = distribution.shape[-1] - 1 - (distribution > 0)[..., ::-1].argmax(-1)
    return np.asarray(np.minimum((cumulative <= target).sum(-1), last), np.int64)
