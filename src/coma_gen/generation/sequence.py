"""One sequence of tokens while it is made."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from coma_gen.core.seeding import generator

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
        tokens: drawn so far; the first `lead` of them only spell the prompt.
        lead: how many.
        illegal: the sum, over the new tokens, of the probability that the model gave to those that the
            grammar forbids.
        seconds: of music so far, from the start.
    """

    prompt: list[int]
    index: int
    until: float
    spelled: tuple[int, ...] = ()
    tokens: array[int] = field(default_factory=lambda: array("H"))
    lead: int = 0
    illegal: float = 0.0
    seconds: float = 0.0
    _uniforms: npt.NDArray[np.float64] | None = None

    @property
    def new_tokens(self) -> int:
        """How many tokens of new music were drawn."""
        return len(self.tokens) - self.lead

    def uniform(self, seed: int) -> float:
        """The random number of the next token, in [0, 1)."""
        block, place = divmod(len(self.tokens), REFILL)
        if place == 0 or self._uniforms is None:
            self._uniforms = generator(seed, "sample", self.index, block).random(REFILL)
        return float(self._uniforms[place])

    @property
    def reached(self) -> bool:
        """Whether the music has reached its time."""
        return self.new_tokens > 0 and self.seconds >= self.until

    def add(self, token: int, *, is_lead: bool, illegal: float, seconds: float) -> None:
        """Appends a token that was drawn."""
        self.tokens.append(token)
        self.lead += is_lead
        self.illegal += 0.0 if is_lead else illegal
        self.seconds = seconds

    def tail(self, count: int) -> list[int]:
        """The last `count` tokens, the prompt's included."""
        newest = self.tokens[-count:].tolist()
        missing = count - len(newest)
        return self.prompt[-missing:] + newest if missing else newest
