"""Draws tokens one after another, several sequences side by side, each with random numbers of its own.

The random number of sequence i's token n is a function of (seed, i, n). Only tokens that continue valid music
are drawn (the grammar), at most so many empty bars in a row, and never PAD, BOS or EOS: who asks for 30
seconds gets them. A sequence ends when its music has reached the time asked for, or at the bound on tokens.

Memory does not grow with the music but for its tokens: the model's state is bounded (unless it has global
layers), and a long prompt is read in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from coma_gen.generation.constraints import GrammarConstraint
from coma_gen.generation.engine import DecodeEngine
from coma_gen.generation.sampling import SamplingParams, probabilities, sample_from
from coma_gen.generation.sequence import SequenceState
from coma_gen.model.conformer import Conformer
from coma_gen.tokenizer.grammar import Grammar


@torch.inference_mode()
def sample_tokens(
    model: Conformer,
    grammar: Grammar,
    sequences: Sequence[SequenceState],
    *,
    choice: SamplingParams,
    seed: int,
    max_tokens: int,
    max_empty_bars: int,
    pull: npt.NDArray[np.float64] | None = None,
    desc: str | None = "sample",
) -> None:
    """Lets every sequence grow until it has finished.

    Args:
        model: in evaluation mode.
        grammar: of its vocabulary.
        sequences: they are added to in place.
        choice: how tokens are chosen.
        seed: with a sequence's index it names the random numbers.
        max_tokens: bound on the new tokens of one sequence.
        max_empty_bars: bound on the empty bars in a row.
        pull: (V,) what is added to the logits before tokens are chosen; None for nothing.
        desc: what the progress bar says, which counts seconds of music: the mean over the sequences; None
            for no bar.
    """
    places = GrammarConstraint(grammar, sequences, max_empty_bars)
    reader = DecodeEngine(model, sequences)
    live = list(sequences)
    with _Progress(sequences, places.seconds(), desc) as progress:
        while live:
            legal = places.legal()
            illegal = places.forbidden_share(reader.logits, legal)
            uniforms = [sequence.uniform(seed) for sequence in live]
            logits = reader.logits if pull is None else reader.logits + pull
            tokens = sample_from(probabilities(logits, places.playable(legal), choice), uniforms)
            is_lead, seconds = places.move(tokens), places.seconds()
            for row, sequence in enumerate(live):
                sequence.add(
                    int(tokens[row]),
                    is_lead=is_lead[row],
                    illegal=float(illegal[row]),
                    seconds=float(seconds[row]),
                )
            progress.show()
            still = [
                row
                for row, sequence in enumerate(live)
                if not sequence.reached and sequence.new_tokens < max_tokens
            ]
            if len(still) < len(live):
                places.take(still)
                live = [live[row] for row in still]
            if live:
                reader.read(live, still)


class _Progress:
    """A progress bar that counts seconds of music."""

    def __init__(
        self, sequences: Sequence[SequenceState], starts: npt.NDArray[np.float64], desc: str | None
    ) -> None:
        self._sequences, self._starts = sequences, starts.tolist()
        total = self._mean([sequence.until for sequence in sequences])
        self._bar: tqdm[Any] = tqdm(
            total=int(total) if np.isfinite(total) else None,
            desc=desc,
            unit=" s of music",
            disable=True if desc is None else None,
        )

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()

    def _mean(self, ends: Sequence[float]) -> float:
        pairs = list(zip(ends, self._starts, strict=True))
        return float(np.mean([max(0.0, end - start) for end, start in pairs]))

    def show(self) -> None:
        """Says how far the music has come."""
        if not self._bar.disable:
            reached = self._mean([min(sequence.seconds, sequence.until) for sequence in self._sequences])
            self._bar.update(int(reached) - self._bar.n)
