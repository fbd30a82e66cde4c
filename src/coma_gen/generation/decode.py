"""Draws tokens one after another, several sequences side by side, each with random numbers of its own.

The random number of sequence i's token n is a function of (seed, i, n). Only tokens that continue valid music
are drawn (the grammar), and never PAD, BOS or EOS: who asks for 30 seconds gets them. A sequence ends when
its music has reached the time asked for, or at the bound on tokens.

Shapes: B sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from coma_gen.determinism import generator
from coma_gen.generation.filters import Choice, drawn, probabilities
from coma_gen.model.conformer import Conformer
from coma_gen.model.state import DecodingState
from coma_gen.tokenizer.grammar import Grammar
from coma_gen.tokenizer.vocabulary import Vocabulary

REFILL = 256
"""Random numbers are drawn in blocks of this many."""


@dataclass
class Growing:
    """One sequence while it grows.

    Attributes:
        prompt: the tokens given, BOS first.
        index: names its random numbers.
        until: seconds of music, from the start, that it must reach.
        state: of the grammar.
        bars: opened so far.
        tokens: drawn so far.
        illegal: for each drawn token, the probability that the model gave to tokens that the grammar forbids.
    """

    prompt: list[int]
    index: int
    until: float
    state: int
    bars: int
    tokens: list[int] = field(default_factory=list)
    illegal: list[float] = field(default_factory=list)
    _uniforms: npt.NDArray[np.float64] | None = None

    @classmethod
    def after(cls, prompt: Sequence[int], grammar: Grammar, *, index: int, until: float) -> Growing:
        """A sequence that begins with `prompt`, BOS first."""
        tokens = [int(token) for token in prompt]
        state = int(grammar.states(tokens[1:])[-1])
        return cls(prompt=tokens, index=index, until=until, state=state, bars=int(grammar.bars[tokens].sum()))

    def uniform(self, seed: int) -> float:
        """The random number of the next token, in [0, 1)."""
        block, place = divmod(len(self.tokens), REFILL)
        if place == 0 or self._uniforms is None:
            self._uniforms = generator(seed, "sample", self.index, block).random(REFILL)
        return float(self._uniforms[place])

    def take(self, logits: npt.NDArray[np.float64], grammar: Grammar, choice: Choice, seed: int) -> None:
        """Draws one token and moves on."""
        allowed = playable(grammar, self.state)
        weights = np.exp(logits - logits.max())
        legal = allowed | _special(grammar.vocabulary)
        self.illegal.append(float(weights[~legal].sum() / weights.sum()))
        token = drawn(probabilities(logits, allowed, choice), self.uniform(seed))
        self.tokens.append(token)
        self.state = int(grammar.advance(self.state, token))
        self.bars += int(grammar.bars[token])

    def finished(self, grammar: Grammar, max_tokens: int) -> bool:
        """Whether the music has reached its time, at the end of a note, or the tokens their bound."""
        return self.reached(grammar) or len(self.tokens) >= max_tokens

    def reached(self, grammar: Grammar) -> bool:
        """Whether the music has reached its time, at the end of a note."""
        at_end = bool(grammar.allowed(self.state)[grammar.vocabulary.base.index("Bar_None")])
        return at_end and float(grammar.seconds_at(self.bars, self.state)) >= self.until


def _special(vocabulary: Vocabulary) -> npt.NDArray[np.bool_]:
    flags = np.zeros(len(vocabulary), bool)
    flags[[vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id]] = True
    return flags


def playable(grammar: Grammar, state: int) -> npt.NDArray[np.bool_]:
    """(V,) what may be drawn: legal in this state, and none of PAD, BOS and EOS."""
    return grammar.allowed(state) & ~_special(grammar.vocabulary)


@torch.inference_mode()
def grow(
    model: Conformer,
    grammar: Grammar,
    sequences: Sequence[Growing],
    *,
    choice: Choice,
    seed: int,
    max_tokens: int,
    desc: str = "sample",
) -> None:
    """Lets every sequence grow until it has finished.

    Args:
        model: in evaluation mode.
        grammar: of its vocabulary.
        sequences: they are added to in place.
        choice: how tokens are chosen.
        seed: with a sequence's index it names the random numbers.
        max_tokens: bound on the tokens of one sequence.
        desc: what the progress bar says.
    """
    reader = _Reader(model, sequences)
    live = list(range(len(sequences)))
    with tqdm(desc=desc, unit="token", disable=None) as bar:
        while live:
            for row, logits in zip(live, reader.logits, strict=True):
                sequences[row].take(logits, grammar, choice, seed)
            bar.update(len(live))
            still = [row for row in live if not sequences[row].finished(grammar, max_tokens)]
            if still:
                reader.read([sequences[row] for row in still], [live.index(row) for row in still])
            live = still


class _Reader:
    """Runs the model over growing sequences; `logits` (B, V) are those of the next token of each live one."""

    def __init__(self, model: Conformer, sequences: Sequence[Growing]) -> None:
        self.model = model
        self.bound = model.params.max_seq_len if model.params.position_embedding == "learned" else None
        self.state, self.logits = self._prefilled([sequence.prompt for sequence in sequences])

    def _prefilled(self, prompts: Sequence[Sequence[int]]) -> tuple[DecodingState, npt.NDArray[np.float64]]:
        """Reads prompts of any lengths, each in one pass."""
        states, rows = [], []
        for prompt in prompts:
            kept = (
                list(prompt)
                if self.bound is None or len(prompt) < self.bound
                else list(prompt[-self.bound // 2 :])
            )
            state = self.model.empty_state(1)
            rows.append(self._forward([kept], state)[0])
            states.append(state)
        return DecodingState.joined(states), np.stack(rows)

    def _forward(self, tokens: Sequence[Sequence[int]], state: DecodingState) -> npt.NDArray[np.float64]:
        device = next(self.model.parameters()).device
        logits = self.model(torch.tensor(tokens, device=device), state)[:, -1]
        return np.asarray(logits.float().cpu().numpy(), np.float64)

    def read(self, sequences: Sequence[Growing], rows: Sequence[int]) -> None:
        """Goes on with the rows named: the last token of each is read."""
        if len(rows) != self.state.batch:
            self.state = self.state.take(rows)
        if self.bound is not None and max(self.state.lengths) >= self.bound:
            self.state, self.logits = self._prefilled(
                [[*sequence.prompt, *sequence.tokens] for sequence in sequences]
            )
            return
        self.logits = self._forward([[sequence.tokens[-1]] for sequence in sequences], self.state)
