"""How given notes are played: velocities, lengths and small delays, drawn by the model.

The tokens of bars and pitches are forced, those of velocities and durations are drawn, and those of
positions among the nearest few, each with all notes before it and its own onset and pitch in sight. So the
grammar holds by construction.
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

LARGEST_TIMING = 100.0


@dataclass(frozen=True)
class TouchRequest:
    """How notes are to be played.

    Attributes:
        seed: the same seed, the same touch.
        num: how many touches; touch k does not depend on it.
        temperature: lower is more even; 0 takes the likeliest token.
        top_p: only the likeliest tokens that make up this probability; None for all.
        timing: milliseconds that an onset may move at most, in steps of the model's grid.
        keep_lengths: notes last as they are written, and the model hears them so.
    """

    seed: int = 0
    num: int = 1
    temperature: float = 1.0
    top_p: float | None = 0.95
    timing: float = 25.0
    keep_lengths: bool = False

    @property
    def choice(self) -> SamplingParams:
        """How tokens are chosen."""
        return SamplingParams(self.temperature, top_p=self.top_p)

    def faults(self) -> list[Fault]:
        """What is out of range, each named by its attribute."""
        rules = {
            "seed": (0 <= self.seed < 2**63, "must be at least 0 and below 2**63"),
            "num": (1 <= self.num <= MAX_PIECES, f"must be 1 to {MAX_PIECES}"),
            "timing": (0 <= self.timing <= LARGEST_TIMING, f"must be 0 to {LARGEST_TIMING:g} milliseconds"),
        }
        found = [
            Fault(name, rule, str(getattr(self, name))) for name, (good, rule) in rules.items() if not good
        ]
        return found + self.choice.faults()


def is_of(ids: Ids, vocabulary: Vocabulary, kind: str) -> npt.NDArray[np.bool_]:
    """(T,) which ids are of a type."""
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
    """Base ids (T,) with velocities drawn anew, durations unless they are kept, and positions within reach.

    Args:
        composer: model and tokenizer.
        ids: of music, without BOS.
        request: seed, number and choice.
        steps: positions by which an onset may move; onsets keep their order and their bar.
        watch: called after each token with what gives the rows so far.
    """
    vocabulary = composer.tokenizer.vocabulary
    drawn = ("Velocity",) if request.keep_lengths else ("Velocity", "Duration")
    spans = [vocabulary.span(kind) for kind in drawn]
    sequences = [SequenceState([composer.tokenizer.bos_id], k, until=np.inf) for k in range(request.num)]
    reader = DecodeEngine(composer.loaded.model, sequences)
    rooms = _rooms(ids, vocabulary, steps)
    for index, token in enumerate(tqdm(ids.tolist(), desc="touch", disable=None)):
        for row, sequence in enumerate(sequences):
            span = next((span for span in spans if token in span), range(token, token + 1))
            if index in rooms:
                span = rooms[index].left(sequence.tokens)
            chosen = span.start
            if len(span) > 1:
                among = probabilities(
                    reader.logits[row : row + 1, span.start : span.stop], None, request.choice
                )
                chosen += int(sample_from(among, [sequence.uniform(request.seed)])[0])
            sequence.tokens.append(chosen)
        reader.read(sequences, range(request.num))
        watch(lambda: [_ids_of(sequence) for sequence in sequences])
    return [_ids_of(sequence) for sequence in sequences]


def _ids_of(sequence: SequenceState) -> Ids:
    return np.array(sequence.tokens, np.uint16)


@dataclass(frozen=True)
class _Room:
    """Where a Position token may move to.

    Attributes:
        span: the tokens near it, in its bar and before the next onset.
        before: index of the Position token before it in the same bar, which it stays behind.
    """

    span: range
    before: int | None

    def left(self, tokens: Sequence[int]) -> range:
        """What of it is behind the tokens drawn so far."""
        if self.before is None:
            return self.span
        return range(max(self.span.start, tokens[self.before] + 1), self.span.stop)


def _rooms(ids: Ids, vocabulary: Vocabulary, steps: int) -> dict[int, _Room]:
    """For each Position token that may move, where to; one that moves the pedal stays."""
    span = vocabulary.span("Position")
    rooms: dict[int, _Room] = {}
    if not steps:
        return rooms
    indices = np.flatnonzero(is_of(ids, vocabulary, "Position")).tolist()
    bars = (times_of(ids, vocabulary)[indices] // vocabulary.positions_per_bar).tolist()
    moves_pedal = is_of(ids, vocabulary, "Pedal") | is_of(ids, vocabulary, "PedalOff")
    for number, index in enumerate(indices):
        token, before, limit = int(ids[index]), None, span.stop
        if number and bars[number - 1] == bars[number]:
            before = indices[number - 1]
        if number + 1 < len(indices) and bars[number + 1] == bars[number]:
            limit = int(ids[indices[number + 1]])
        if not moves_pedal[index + 1]:
            near = range(max(span.start, token - steps), min(limit, token + steps + 1))
            rooms[index] = _Room(near, before)
    return rooms
