"""Samples expressive performances of given notes: velocities, lengths and small delays.

The tokens of bars, pitches and pedals are forced; those of velocities and durations are sampled, and those of
positions are sampled among the nearest few. A velocity or duration is conditioned on all notes before it and
on its own onset and pitch. The result obeys the grammar by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from coma_gen.core.errors import Fault
from coma_gen.generation.engine import DecodeEngine
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.request import MAX_PIECES
from coma_gen.generation.sampling import SamplingParams, probabilities, sample_from
from coma_gen.generation.sequence import SequenceState
from coma_gen.tokenizer.codec import times_of
from coma_gen.tokenizer.vocabulary import Ids, Vocabulary

MAX_TIMING_MS = 100.0


@dataclass(frozen=True)
class TouchRequest:
    """Settings of an expressive performance.

    Attributes:
        seed: Seed of the random numbers.
        num: Number of performances; performance k does not depend on it.
        temperature: Lower is more even; 0 takes the most likely token.
        top_p: Sample from the most likely tokens that reach this total probability; None for all.
        timing: Maximum shift of an onset in milliseconds, rounded down to steps of the model's grid.
        keep_lengths: Keep the written note lengths, and condition the model on them.
    """

    seed: int = 0
    num: int = 1
    temperature: float = 1.0
    top_p: float | None = 0.95
    timing: float = 25.0
    keep_lengths: bool = False

    @property
    def sampling(self) -> SamplingParams:
        """The sampling parameters."""
        return SamplingParams(self.temperature, top_p=self.top_p)

    def faults(self) -> list[Fault]:
        """Lists the settings that are out of range, each named by its attribute."""
        rules = {
            "seed": (0 <= self.seed < 2**63, "must be at least 0 and below 2**63"),
            "num": (1 <= self.num <= MAX_PIECES, f"must be 1 to {MAX_PIECES}"),
            "timing": (0 <= self.timing <= MAX_TIMING_MS, f"must be 0 to {MAX_TIMING_MS:g} milliseconds"),
        }
        found = [
            Fault(name, rule, str(getattr(self, name))) for name, (good, rule) in rules.items() if not good
        ]
        return found + self.sampling.faults()


def is_type(ids: Ids, vocabulary: Vocabulary, kind: str) -> npt.NDArray[np.bool_]:
    """Returns a mask (T,) of the ids of a token type."""
    span = vocabulary.span(kind)
    return np.asarray((ids >= span.start) & (ids < span.stop))


@torch.inference_mode()
def draw_touches(
    composer: MusicGenerator,
    ids: Ids,
    request: TouchRequest,
    *,
    steps: int = 0,
    watch: Callable[[Callable[[], list[Ids]]], None] = lambda _rows: None,
) -> list[Ids]:
    """Resamples velocities, durations (unless `keep_lengths`) and positions of base ids (T,).

    Args:
        composer: Model and tokenizer.
        ids: (T,) base ids of the notes, without BOS.
        request: Seed, number and sampling of the performances.
        steps: Positions by which an onset may move; onsets keep their order and their bar.
        watch: Callback after each token; it receives a function that returns the rows so far.

    Returns:
        (T,) base ids of each performance.
    """
    vocabulary = composer.tokenizer.vocabulary
    sampled_types = ("Velocity",) if request.keep_lengths else ("Velocity", "Duration")
    spans = [vocabulary.span(token_type) for token_type in sampled_types]
    sequences = [SequenceState([composer.tokenizer.bos_id], k, until=np.inf) for k in range(request.num)]
    engine = DecodeEngine(composer.loaded.model, sequences)
    onset_ranges = _find_onset_ranges(ids, vocabulary, steps)
    for index, token in enumerate(tqdm(ids.tolist(), desc="touch", disable=None)):
        for row, sequence in enumerate(sequences):
            span = next((span for span in spans if token in span), range(token, token + 1))
            if index in onset_ranges:
                span = onset_ranges[index].after(sequence.tokens)
            chosen = span.start
            if len(span) > 1:
                distribution = probabilities(
                    engine.logits[row : row + 1, span.start : span.stop], None, request.sampling
                )
                chosen += int(sample_from(distribution, [sequence.uniform(request.seed)])[0])
            sequence.tokens.append(chosen)
        engine.read(sequences, range(request.num))
        watch(lambda: [_to_ids(sequence) for sequence in sequences])
    return [_to_ids(sequence) for sequence in sequences]


def _to_ids(sequence: SequenceState) -> Ids:
    return np.array(sequence.tokens, np.uint16)


@dataclass(frozen=True)
class _OnsetRange:
    """The range within which a Position token may move.

    Attributes:
        span: Nearby Position tokens, in the same bar and before the next onset.
        before: Index of the previous Position token of the same bar, which must stay earlier.
    """

    span: range
    before: int | None

    def after(self, tokens: Sequence[int]) -> range:
        """Returns the part of the range that is later than the previous onset in `tokens`."""
        if self.before is None:
            return self.span
        return range(max(self.span.start, tokens[self.before] + 1), self.span.stop)


def _find_onset_ranges(ids: Ids, vocabulary: Vocabulary, steps: int) -> dict[int, _OnsetRange]:
    """Returns index -> range of each Position token that may move; one before a pedal event may not."""
    span = vocabulary.span("Position")
    onset_ranges: dict[int, _OnsetRange] = {}
    if not steps:
        return onset_ranges
    indices = np.flatnonzero(is_type(ids, vocabulary, "Position")).tolist()
    bars = (times_of(ids, vocabulary)[indices] // vocabulary.positions_per_bar).tolist()
    moves_pedal = is_type(ids, vocabulary, "Pedal") | is_type(ids, vocabulary, "PedalOff")
    for number, index in enumerate(indices):
        token, before, limit = int(ids[index]), None, span.stop
        if number and bars[number - 1] == bars[number]:
            before = indices[number - 1]
        if number + 1 < len(indices) and bars[number + 1] == bars[number]:
            limit = int(ids[indices[number + 1]])
        if not moves_pedal[index + 1]:
            near = range(max(span.start, token - steps), min(limit, token + steps + 1))
            onset_ranges[index] = _OnsetRange(near, before)
    return onset_ranges
