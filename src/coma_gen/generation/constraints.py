"""Where sequences stand in their music, and so what may come next: a row for each, all at once.

Shapes: B live sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coma_gen.generation.sequence import SequenceState
from coma_gen.generation.token_healing import Flags, PrefixConstraint
from coma_gen.tokenizer.grammar import Grammar

Tokens = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


class GrammarConstraint:
    """Where the live sequences stand in their music, a row each."""

    def __init__(self, grammar: Grammar, sequences: Sequence[SequenceState], max_empty_bars: int) -> None:
        vocabulary = grammar.vocabulary
        self._grammar, self._max_empty_bars = grammar, max_empty_bars
        self._special: Flags = np.zeros(len(vocabulary), bool)
        self._special[[vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id]] = True
        self._speller = (
            PrefixConstraint(vocabulary) if any(sequence.unspelled for sequence in sequences) else None
        )
        self.spelled = [sequence.unspelled for sequence in sequences]
        read = [sequence.read for sequence in sequences]
        states = [int(grammar.states(ids[1:])[-1]) for ids in read]
        self._state = np.array(states, np.int64)
        self._bars = np.array([grammar.bars[ids].sum() for ids in read], np.int64)
        self._silent = np.array([_trailing(grammar.is_bar[ids]) for ids in read], np.int64)
        given = [len(s.prompt) > 1 and not s.spelled and not s.tokens for s in sequences]
        self._state = np.where(given, grammar.closed(self._state), self._state)

    def legal(self) -> Flags:
        """(B, V) what the grammar allows next."""
        return self._grammar.allowed(self._state)

    def playable(self, legal: Flags) -> Flags:
        """(B, V) what of that may be drawn: no special token, no empty bar too many, what must be spelled."""
        quiet = self._silent > self._max_empty_bars
        free: Flags = legal & ~self._special & ~(quiet[:, None] & self._grammar.opens_bar)
        for row, spelled in enumerate(self.spelled):
            if spelled and self._speller is not None:
                free[row] = legal[row] & self._speller.agreeing(spelled)
        return free

    def forbidden_share(self, logits: Reals, legal: Flags) -> Reals:
        """(B,) the probability that the model gives to tokens which the grammar forbids."""
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(np.where(legal | self._special, 0.0, weights).sum(-1) / weights.sum(-1), np.float64)

    def move(self, tokens: Tokens) -> list[bool]:
        """Goes on behind one token of each row; returns whether each token only spells its prompt."""
        self._state = self._grammar.advance(self._state, tokens)
        self._bars += self._grammar.bars[tokens]
        self._silent = np.where(self._grammar.is_bar[tokens], self._silent + 1, 0)
        is_lead = [False] * len(tokens)
        for row, spelled in enumerate(self.spelled):
            if spelled:
                length = len(self._grammar.vocabulary.pieces[tokens[row]])
                self.spelled[row] = spelled[length:]
                is_lead[row] = length <= len(spelled)
                if length == len(spelled):
                    self._state[row] = self._grammar.closed(int(self._state[row]))
        return is_lead

    def seconds(self) -> Reals:
        """(B,) of music so far, from the start."""
        return self._grammar.seconds_at(self._bars, self._state)

    def take(self, rows: Sequence[int]) -> None:
        """Keeps the rows named."""
        self._state, self._bars, self._silent = (
            column[list(rows)] for column in (self._state, self._bars, self._silent)
        )
        self.spelled = [self.spelled[row] for row in rows]


def _trailing(flags: Flags) -> int:
    """How many of the last flags are set in a row."""
    unset = np.flatnonzero(~flags)
    return len(flags) - 1 - int(unset[-1]) if len(unset) else len(flags)
