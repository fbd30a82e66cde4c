"""The result of generation: the notes of a piece and how they were sampled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from coma_gen.midi.notes import Notes


@dataclass(frozen=True)
class Continuation:
    """One piece of generated music.

    Attributes:
        prompt: The prompt, with the pedal up to the splice where the model writes the pedal; None without
            one.
        added: The new notes, at their times after the prompt.
        tokens: Number of generated tokens.
        illegal: Mean probability mass that the model put on tokens which the grammar forbids.
        valid: Whether all tokens, prompt included, obey the grammar.
        reached: Whether the piece is as long as requested; otherwise it ended at `max_tokens`.
        left_out: Number of new notes dropped because they overlap the prompt: on a key that it still holds,
            or before its last note (which may have a pitch outside the vocabulary).
        rewinds: How often sampling was rewound out of a loop.
        redrawn: Number of generated tokens that rewinding dropped.
        draw: Index of the draw, from 1, where the draws nearest to the prompt are selected; otherwise None,
            as are `distance` and `tokens_of_all_draws`.
        distance: Distance from the prompt (see `ranking`).
        tokens_of_all_draws: Number of tokens sampled for all draws together.
    """

    prompt: Notes | None
    added: Notes
    tokens: int
    illegal: float
    valid: bool
    reached: bool
    left_out: int
    rewinds: int = 0
    redrawn: int = 0
    draw: int | None = None
    distance: float | None = None
    tokens_of_all_draws: int | None = None

    @property
    def prompt_end(self) -> float | None:
        """Onset in seconds of the prompt's last note; None without a prompt."""
        return None if self.prompt is None else self.prompt.end_of_onsets

    @cached_property
    def notes(self) -> Notes:
        """Notes of the prompt and the continuation."""
        return self.added if self.prompt is None else self.prompt.joined(self.added)

    @property
    def new(self) -> Notes:
        """The new notes, with times relative to the splice."""
        return self.added if self.prompt_end is None else self.added.shifted(-self.prompt_end)
