"""One sequence of tokens while it is made."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from coma_gen.core.seeding import generator
from coma_gen.generation.told import Told
from coma_gen.tokenizer.conditions import Bins

REFILL = 256
"""Random numbers are drawn in blocks of this many."""


@dataclass
class SequenceState:
    """One sequence while it grows.

    Attributes:
        prompt: the tokens given, BOS first.
        index: names its random numbers.
        until: seconds of music, from the start, that it must reach.
        spelled: base tokens that the prompt goes on with, for the model to choose the ids of.
        told: what the model is told of it; None for a model without conditions.
        tokens: drawn so far; the first `lead` of them only spell the prompt.
        lead: how many.
        illegal: for each of them the probability that the model gave to tokens which the grammar forbids.
        seconds: of music so far, from the start.
        rewinds: how often it went back.
        redrawn: how many tokens were drawn and dropped by that.
    """

    prompt: list[int]
    index: int
    until: float
    spelled: tuple[int, ...] = ()
    told: Told | None = None
    tokens: array[int] = field(default_factory=lambda: array("H"))
    lead: int = 0
    illegal: array[float] = field(default_factory=lambda: array("d"))
    seconds: float = 0.0
    rewinds: int = 0
    redrawn: int = 0
    _uniforms: npt.NDArray[np.float64] | None = None

    @property
    def new_tokens(self) -> int:
        """How many tokens of new music were drawn."""
        return len(self.tokens) - self.lead

    def uniform(self, seed: int) -> float:
        """The random number of the next token, in [0, 1)."""
        block, offset = divmod(len(self.tokens) + self.redrawn, REFILL)
        if offset == 0 or self._uniforms is None:
            self._uniforms = generator(seed, "sample", self.index, block).random(REFILL)
        return float(self._uniforms[offset])

    @property
    def reached(self) -> bool:
        """Whether the music has reached its time."""
        return self.new_tokens > 0 and self.seconds >= self.until

    def add(self, token: int, *, is_lead: bool, illegal: float, seconds: float) -> None:
        """Appends a token that was drawn."""
        self.tokens.append(token)
        self.lead += is_lead
        self.illegal.append(0.0 if is_lead else illegal)
        self.seconds = seconds

    def rewind(self, keep: int) -> None:
        """Drops all tokens but the first `keep`: none, or more than those that only spell the prompt."""
        self.rewinds += 1
        self.redrawn += len(self.tokens) - keep
        del self.tokens[keep:], self.illegal[keep:]
        self.lead = min(self.lead, keep)

    @property
    def read(self) -> list[int]:
        """The prompt and what was drawn."""
        return self.prompt + self.tokens.tolist()

    @property
    def unspelled(self) -> tuple[int, ...]:
        """What is left to be spelled before the next token is drawn, where none or all of it was."""
        return () if self.tokens else self.spelled

    @property
    def length(self) -> int:
        """Tokens of the prompt and those drawn."""
        return len(self.prompt) + len(self.tokens)

    def tail(self, count: int) -> list[int]:
        """The last `count` tokens, the prompt's included."""
        newest = self.tokens[-count:].tolist()
        missing = count - len(newest)
        return self.prompt[-missing:] + newest if missing else newest

    def told_of_tail(self, count: int) -> Bins | None:
        """(T, F) what the model is told of the same tokens as `tail` gives."""
        return None if self.told is None else self.told.tail(count, len(self.tokens))
