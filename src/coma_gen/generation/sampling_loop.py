"""The sampling loop: generates tokens for a batch of sequences, each with its own random numbers.

The random number of token n of sequence i is a function of (seed, i, n). Only tokens that continue valid
music are sampled (the grammar), with a limit on consecutive empty bars, and never PAD, BOS or EOS, so a
request for 30 seconds yields 30 seconds. A sequence ends when its music is as long as requested, or at
`max_tokens`.

A sequence that loops is rewound to where the loop began (see `guard`). It leaves the batch; when the others
have ended, it is prefilled again and continues beside all others that were rewound. Its tokens therefore
depend on itself alone.

Apart from the tokens, memory does not grow with the music: the cache is bounded (without global attention
layers), and a long prompt is prefilled in chunks.
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
    sampling: SamplingParams,
    seed: int,
    max_tokens: int,
    max_empty_bars: int,
    max_rewinds: int = 0,
    logit_bias: npt.NDArray[np.float64] | None = None,
    desc: str | None = "sample",
    watch: Callable[[], None] | None = None,
) -> None:
    """Samples every sequence until it is complete.

    Args:
        model: Model in evaluation mode.
        grammar: Grammar of its vocabulary.
        sequences: Sequences, extended in place.
        sampling: Sampling parameters.
        seed: Seed of the random numbers, together with the index of a sequence.
        max_tokens: Maximum number of new tokens per sequence.
        max_empty_bars: Maximum number of consecutive empty bars.
        max_rewinds: How often a sequence may be rewound from one bar to leave a loop. Not applied at a
            temperature of 0, which would repeat the same tokens.
        logit_bias: (V,) bias that is added to the logits; None for none.
        desc: Label of the progress bar, which counts the mean seconds of music per sequence; None hides it.
        watch: Callback after each token; it may raise to stop sampling.
    """
    starts = GrammarConstraint(grammar, sequences, max_empty_bars).seconds()
    guard = LoopGuard(grammar.vocabulary, max_rewinds) if sampling.temperature and max_rewinds else None
    pending = list(sequences)
    with _Progress(sequences, starts, desc) as progress:
        while pending:
            batch = _LiveBatch(model, grammar, pending, sampling, max_empty_bars, logit_bias)
            pending = []
            while batch.live:
                batch.sample(seed)
                progress.show()
                if watch is not None:
                    watch()
                pending += batch.advance(guard, max_tokens)


class _LiveBatch:
    """A batch of sequences; `live` are those which have neither ended nor been rewound."""

    def __init__(
        self,
        model: Conformer,
        grammar: Grammar,
        sequences: Sequence[SequenceState],
        sampling: SamplingParams,
        max_empty_bars: int,
        logit_bias: npt.NDArray[np.float64] | None,
    ) -> None:
        self.live = list(sequences)
        self._opens_bar, self._logit_bias = grammar.opens_bar, logit_bias
        self._sampling, self._parts = sampling, sampling.parts(grammar.vocabulary)
        self._constraint = GrammarConstraint(grammar, sequences, max_empty_bars)
        self._engine = DecodeEngine(model, sequences)

    def sample(self, seed: int) -> None:
        """Appends one token to each live sequence."""
        constraint, logits = self._constraint, self._engine.logits
        legal = constraint.legal()
        illegal = constraint.invalid_probability(logits, legal)
        uniforms = [sequence.uniform(seed) for sequence in self.live]
        biased = logits if self._logit_bias is None else logits + self._logit_bias
        distributions = probabilities(biased, constraint.playable(legal), self._sampling, self._parts)
        tokens = sample_from(distributions, uniforms)
        in_prefix, seconds = constraint.advance(tokens), constraint.seconds()
        for row, sequence in enumerate(self.live):
            sequence.add(
                int(tokens[row]),
                in_prefix=in_prefix[row],
                illegal=float(illegal[row]),
                seconds=float(seconds[row]),
            )

    def advance(self, guard: LoopGuard | None, max_tokens: int) -> list[SequenceState]:
        """Removes sequences that have ended or loop, and runs the model on the last tokens of the others.

        Returns:
            The sequences that were rewound.
        """
        rows, rewound = [], []
        for row, sequence in enumerate(self.live):
            if sequence.reached or sequence.new_tokens >= max_tokens:
                continue
            opens_bar = self._opens_bar[sequence.tokens[-1]]
            keep = guard.tokens_to_keep(sequence) if guard is not None and opens_bar else None
            if keep is None:
                rows.append(row)
            else:
                sequence.rewind(keep)
                rewound.append(sequence)
        if len(rows) < len(self.live):
            self._constraint.select_rows(rows)
            self.live = [self.live[row] for row in rows]
        if self.live:
            self._engine.read(self.live, rows)
        return rewound


class _Progress:
    """A progress bar that counts seconds of music."""

    def __init__(
        self, sequences: Sequence[SequenceState], starts: npt.NDArray[np.float64], desc: str | None
    ) -> None:
        self._sequences, self._starts = sequences, starts.tolist()
        total = self._compute_mean([sequence.until for sequence in sequences])
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

    def _compute_mean(self, ends: Sequence[float]) -> float:
        pairs = list(zip(ends, self._starts, strict=True))
        return float(np.mean([max(0.0, end - start) for end, start in pairs]))

    def show(self) -> None:
        """Updates the bar to the mean length of the music so far."""
        if not self._bar.disable:
            reached = self._compute_mean(
                [min(sequence.seconds, sequence.until) for sequence in self._sequences]
            )
            self._bar.update(int(reached) - self._bar.n)
