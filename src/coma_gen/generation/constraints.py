"""Grammar-constrained decoding: which tokens may come next in each of B sequences, computed for all at once.

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
    """Grammar state of the live sequences, one row each."""

    def __init__(self, grammar: Grammar, sequences: Sequence[SequenceState], max_empty_bars: int) -> None:
        vocabulary = grammar.vocabulary
        self._grammar, self._max_empty_bars = grammar, max_empty_bars
        self._special: Flags = np.zeros(len(vocabulary), bool)
        self._special[[vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id]] = True
        self._prefix_constraint = (
            PrefixConstraint(vocabulary) if any(sequence.pending_prefix for sequence in sequences) else None
        )
        self.prefixes = [sequence.pending_prefix for sequence in sequences]
        rows = [sequence.token_ids for sequence in sequences]
        states = [int(grammar.states(ids[1:])[-1]) for ids in rows]
        self._state = np.array(states, np.int64)
        self._bars = np.array([grammar.bars[ids].sum() for ids in rows], np.int64)
        self._empty_bars = np.array([_count_trailing(grammar.is_bar[ids]) for ids in rows], np.int64)
        at_prompt_end = [len(s.prompt) > 1 and not s.prefix and not s.tokens for s in sequences]
        self._state = np.where(at_prompt_end, grammar.closed(self._state), self._state)

    def legal(self) -> Flags:
        """Returns a mask (B, V) of the tokens that the grammar allows next."""
        return self._grammar.allowed(self._state)

    def playable(self, legal: Flags) -> Flags:
        """Returns a mask (B, V) of the legal tokens that may be sampled.

        Excludes special tokens and bars beyond the limit on empty bars; a row with a pending prefix may
        sample only tokens that match it.
        """
        quiet = self._empty_bars > self._max_empty_bars
        playable: Flags = legal & ~self._special & ~(quiet[:, None] & self._grammar.opens_bar)
        for row, prefix in enumerate(self.prefixes):
            if prefix and self._prefix_constraint is not None:
                playable[row] = legal[row] & self._prefix_constraint.matching_ids(prefix)
        return playable

    def invalid_probability(self, logits: Reals, legal: Flags) -> Reals:
        """Returns the probability mass (B,) that the model puts on tokens which the grammar forbids."""
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(np.where(legal | self._special, 0.0, weights).sum(-1) / weights.sum(-1), np.float64)

    def advance(self, tokens: Tokens) -> list[bool]:
        """Advances each row by one token and returns which of the tokens lie within the row's prefix."""
        self._state = self._grammar.advance(self._state, tokens)
        self._bars += self._grammar.bars[tokens]
        self._empty_bars = np.where(self._grammar.is_bar[tokens], self._empty_bars + 1, 0)
        in_prefix = [False] * len(tokens)
        for row, prefix in enumerate(self.prefixes):
            if prefix:
                length = len(self._grammar.vocabulary.pieces[tokens[row]])
                self.prefixes[row] = prefix[length:]
                in_prefix[row] = length <= len(prefix)
                if length == len(prefix):
                    self._state[row] = self._grammar.closed(int(self._state[row]))
        return in_prefix

    def seconds(self) -> Reals:
        """Returns the length (B,) of the music so far in seconds, prompt included."""
        return self._grammar.seconds_at(self._bars, self._state)

    def select_rows(self, rows: Sequence[int]) -> None:
        """Drops all rows but `rows`."""
        self._state, self._bars, self._empty_bars = (
            column[list(rows)] for column in (self._state, self._bars, self._empty_bars)
        )
        self.prefixes = [self.prefixes[row] for row in rows]


def _count_trailing(flags: Flags) -> int:
    """Counts the set flags at the end."""
    unset = np.flatnonzero(~flags)
    return len(flags) - 1 - int(unset[-1]) if len(unset) else len(flags)
