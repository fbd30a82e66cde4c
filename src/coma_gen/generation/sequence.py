"""State of one sequence during generation."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from coma_gen.core.seeding import generator
from coma_gen.generation.condition_sequence import ConditionSequence
from coma_gen.tokenizer.conditions import Bins

REFILL = 256
"""Random numbers per block."""


@dataclass
class SequenceState:
    """Tokens and counters of one sequence during generation.

    Attributes:
        prompt: Prompt tokens, BOS first.
        index: Index of the sequence, which selects its random numbers.
        until: Length in seconds, prompt included, at which the sequence is complete.
        prefix: Base tokens at the end of the prompt that generation must reproduce first (token healing).
        conditions: Condition bins of its tokens; None for a model without conditions.
        tokens: Generated tokens.
        num_prefix: How many of them only reproduce `prefix`.
        illegal: For each of them, the probability mass that the model put on tokens which the grammar
            forbids.
        seconds: Length of the music so far, prompt included.
        rewinds: How often the sequence was rewound.
        redrawn: Generated tokens that rewinding dropped.
    """

    prompt: list[int]
    index: int
    until: float
    prefix: tuple[int, ...] = ()
    conditions: ConditionSequence | None = None
    tokens: array[int] = field(default_factory=lambda: array("H"))
    num_prefix: int = 0
    illegal: array[float] = field(default_factory=lambda: array("d"))
    seconds: float = 0.0
    rewinds: int = 0
    redrawn: int = 0
    _uniforms: npt.NDArray[np.float64] | None = None

    @property
    def new_tokens(self) -> int:
        """The number of generated tokens beyond the prefix."""
        return len(self.tokens) - self.num_prefix

    def uniform(self, seed: int) -> float:
        """Returns the random number in [0, 1) of the next token."""
        block, offset = divmod(len(self.tokens) + self.redrawn, REFILL)
        if offset == 0 or self._uniforms is None:
            self._uniforms = generator(seed, "sample", self.index, block).random(REFILL)
        return float(self._uniforms[offset])

    @property
    def reached(self) -> bool:
        """Whether the music is as long as requested."""
        return self.new_tokens > 0 and self.seconds >= self.until

    def add(self, token: int, *, in_prefix: bool, illegal: float, seconds: float) -> None:
        """Appends a sampled token."""
        self.tokens.append(token)
        self.num_prefix += in_prefix
        self.illegal.append(0.0 if in_prefix else illegal)
        self.seconds = seconds

    def rewind(self, keep: int) -> None:
        """Drops all generated tokens but the first `keep`, which is 0 or reaches beyond the prefix."""
        self.rewinds += 1
        self.redrawn += len(self.tokens) - keep
        del self.tokens[keep:], self.illegal[keep:]
        self.num_prefix = min(self.num_prefix, keep)

    @property
    def token_ids(self) -> list[int]:
        """Prompt and generated tokens."""
        return self.prompt + self.tokens.tolist()

    @property
    def pending_prefix(self) -> tuple[int, ...]:
        """The prefix that is still to be reproduced, at a time when none or all of it has been."""
        return () if self.tokens else self.prefix

    @property
    def length(self) -> int:
        """The number of prompt and generated tokens."""
        return len(self.prompt) + len(self.tokens)

    def tail(self, count: int) -> list[int]:
        """Returns the last `count` prompt and generated tokens."""
        newest = self.tokens[-count:].tolist()
        missing = count - len(newest)
        return self.prompt[-missing:] + newest if missing else newest

    def tail_conditions(self, count: int) -> Bins | None:
        """Returns the condition bins (T, F) of the tokens of `tail`."""
        return None if self.conditions is None else self.conditions.tail(count, len(self.tokens))
