"""Which of the likely tokens may be drawn: temperature, top-k, top-p and min-p, and a draw that repeats.

The filters act in the order temperature, top-k, top-p, min-p, each on what the ones before left, and each
keeps at least the likeliest token. Sources: top-k, Fan et al. 2018 (arXiv 1805.04833); top-p, Holtzman et al.
2020 (arXiv 1904.09751); min-p, Nguyen et al. 2024 (arXiv 2407.01082).

The last three, the truncation, act within types of token: what is cut of the pitches goes to other pitches,
and how likely a pitch is against a position or a bar stays what the model says. Types that are not named are
drawn as the model has them. Durations, for one, have a long tail in which most of the held notes lie; cut it
and notes become short, the model goes on in the manner of short notes, and the music becomes thin.
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
"""What the truncation can be asked for -> types of base token."""
TRUNCATED, TOP_P = ("pitch",), 0.85
"""What is cut by default, and to which share. On 64 test prompts the demo's model then plays 7.0 notes a
second, of 0.57 s (real music: 7.1, of 0.97 s); with all types cut at 0.95 it played 10.6, of 0.30 s. To cut
positions too favors short steps: 10.2 notes a second on validation, where it is 8.8 without and 8.7 in music.
"""


@dataclass(frozen=True)
class SamplingParams:
    """How a token is chosen.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: keep the k likeliest; None keeps all. Equals at the border are kept by the lower id.
        top_p: keep the fewest likeliest tokens whose probabilities reach this sum; None keeps all.
        min_p: keep tokens at least this share as likely as the likeliest; None keeps all.
        truncate: the types of token, of `TYPES`, within which top_k, top_p and min_p act.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    truncate: Sequence[str] = TRUNCATED

    @classmethod
    def of(cls, params: SampleParams) -> SamplingParams:
        """The choice that params.yaml asks for."""
        return cls(params.temperature, params.top_k, params.top_p, params.min_p, params.truncate)

    def parts(self, vocabulary: Vocabulary) -> list[Ids]:
        """The ids of each type that is truncated; a learned id is of the type that it begins with."""
        wanted = [kind for name in self.truncate for kind in TYPES[name]]
        first = [types[0] if types else "" for types in vocabulary.token_types]
        parts = [np.flatnonzero(np.array(first) == kind) for kind in wanted]
        return [ids for ids in parts if len(ids) > 1]

    def faults(self) -> list[Fault]:
        """What is out of range."""
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
    choice: SamplingParams,
    parts: Sequence[Ids] | None = None,
) -> Probabilities:
    """The distributions that tokens are drawn from; a row depends on its own logits alone.

    Args:
        logits: (..., V) finite scores.
        allowed: (..., V) tokens that may be drawn at all, at least one of each row; None allows all.
        choice: the filters.
        parts: the ids of each type that is truncated, within itself (`SamplingParams.parts`); None takes all
            ids as one type.

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
    if (choice.top_k, choice.top_p, choice.min_p) != (None, None, None):
        for ids in [np.arange(weights.shape[-1])] if parts is None else parts:
            weights[..., ids] = _truncated(np.take(weights, ids, axis=-1), choice)
    normalized: Probabilities = weights / weights.sum(-1, keepdims=True)
    return normalized


def _truncated(weights: Probabilities, choice: SamplingParams) -> Probabilities:
    """Weights (..., K) without those that the filters cut; their sum stays, also where it is zero."""
    truncated = weights
    if choice.top_k is not None or choice.top_p is not None:
        truncated = np.where(_likeliest(weights, choice), weights, 0.0)
    if choice.min_p is not None:
        truncated = np.where(truncated >= choice.min_p * truncated.max(-1, keepdims=True), truncated, 0.0)
    left = truncated.sum(-1, keepdims=True)
    return np.asarray(
        truncated * (weights.sum(-1, keepdims=True) / np.where(left > 0, left, 1.0)), np.float64
    )


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
    mask = np.zeros(weights.shape, bool)
    np.put_along_axis(mask, order, stays, -1)
    return mask


def sample_from(distribution: Probabilities, uniform: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(...) the tokens at `uniform` (...) in [0, 1) of cumulative distributions (..., V); one of probability
    zero is never drawn.
    """
    cumulative = np.cumsum(distribution, -1)
    target = np.asarray(uniform)[..., None] * cumulative[..., -1:]
    last = distribution.shape[-1] - 1 - (distribution > 0)[..., ::-1].argmax(-1)
    return np.asarray(np.minimum((cumulative <= target).sum(-1), last), np.int64)
