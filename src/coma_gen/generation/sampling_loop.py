"""Draws tokens one after another, several sequences side by side, each with random numbers of its own.

The random number of sequence i's token n is a function of (seed, i, n). Only tokens that continue valid music
are drawn (the grammar), at most so many empty bars in a row, and never PAD, BOS or EOS: who asks for 30
seconds gets them. A sequence ends when its music has reached the time asked for, or at the bound on tokens.

One whose music is stuck goes back to where that began (see `guard`). It leaves the others, and when they have
ended is read anew up to there and goes on, beside those that went back as well: so what becomes of it depends
on itself alone.

Memory does not grow with the music but for its tokens: the model's state is bounded (unless it has global
layers), and a long prompt is read in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from coma_gen.generation.constraints import GrammarConstraint
from coma_gen.generation.engine import DecodeEngine
from coma_gen.generation.guard import LoopGuard
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
    max_rewinds: int = 0,
    pull: npt.NDArray[np.float64] | None = None,
    desc: str | None = "sample",
    watch: Callable[[], None] | None = None,
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
        max_rewinds: how often a sequence goes back from one bar where its music is stuck; at a temperature
            of 0, which would draw the same again, it never does.
        pull: (V,) what is added to the logits before tokens are chosen; None for nothing.
        desc: what the progress bar says, which counts seconds of music: the mean over the sequences; None
            for no bar.
        watch: called after each token; what it raises ends the sampling.
    """
    starts = GrammarConstraint(grammar, sequences, max_empty_bars).seconds()
    guard = LoopGuard(grammar.vocabulary, max_rewinds) if choice.temperature and max_rewinds else None
    growing = list(sequences)
    with _Progress(sequences, starts, desc) as progress:
        while growing:
            rows = _Rows(model, grammar, growing, choice, max_empty_bars, pull)
            growing = []
            while rows.live:
                rows.draw(seed)
                progress.show()
                if watch is not None:
                    watch()
                growing += rows.go_on(guard, max_tokens)


class _Rows:
    """Sequences that are drawn side by side: `live` are those which have not ended or gone back."""

    def __init__(
        self,
        model: Conformer,
        grammar: Grammar,
        sequences: Sequence[SequenceState],
        choice: SamplingParams,
        max_empty_bars: int,
        pull: npt.NDArray[np.float64] | None,
    ) -> None:
        self.live = list(sequences)
        self._opens_bar, self._pull = grammar.opens_bar, pull
        self._choice, self._parts = choice, choice.parts(grammar.vocabulary)
        self._constraint = GrammarConstraint(grammar, sequences, max_empty_bars)
        self._reader = DecodeEngine(model, sequences)

    def draw(self, seed: int) -> None:
        """Adds one token to each."""
        constraint, logits = self._constraint, self._reader.logits
        legal = constraint.legal()
        illegal = constraint.forbidden_share(logits, legal)
        uniforms = [sequence.uniform(seed) for sequence in self.live]
        pulled = logits if self._pull is None else logits + self._pull
        distributions = probabilities(pulled, constraint.playable(legal), self._choice, self._parts)
        tokens = sample_from(distributions, uniforms)
        is_lead, seconds = constraint.move(tokens), constraint.seconds()
        for row, sequence in enumerate(self.live):
            sequence.add(
                int(tokens[row]),
                is_lead=is_lead[row],
                illegal=float(illegal[row]),
                seconds=float(seconds[row]),
            )

    def go_on(self, guard: LoopGuard | None, max_tokens: int) -> list[SequenceState]:
        """Reads what was drawn, and lets go of sequences that have ended or are stuck.

        Returns:
            Those that have gone back.
        """
        still, stuck = [], []
        for row, sequence in enumerate(self.live):
            if sequence.reached or sequence.new_tokens >= max_tokens:
                continue
            opens_bar = self._opens_bar[sequence.tokens[-1]]
            keep = guard.tokens_to_keep(sequence) if guard is not None and opens_bar else None
            if keep is None:
                still.append(row)
            else:
                sequence.rewind(keep)
                stuck.append(sequence)
        if len(still) < len(self.live):
            self._constraint.take(still)
            self.live = [self.live[row] for row in still]
        if self.live:
            self._reader.read(self.live, still)
        return stuck


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
