"""What somebody asks a model for: one type, and one set of bounds, for the command line and for serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.controls import Controls
from coma_gen.generation.sampling import TOP_P, TRUNCATED, SamplingParams
from coma_gen.midi.io import MAX_SECONDS
from coma_gen.midi.notes import Notes

LONGEST_SECONDS, LONGEST_PROMPT_SECONDS = 36_000.0, 3_600.0
"""Ten hours of new music behind an hour: a piece stays below what a MIDI file of ours may last."""
MOST_TOKENS = 10_000_000
MAX_PIECES = 256
OF_A_PROMPT = ("from_second", "prompt_seconds", "until_second", "only_new", "best_of")
"""Settings that mean nothing without a prompt."""
MAX_EMPTY_BARS = 20
"""A bar lasts 2 s. Of MAESTRO's 1,276 performances 51% hold a gap of more than 4 s, all but one have at most
20 empty bars in a row, and that one has 24."""


MAX_REWINDS = 4


@dataclass(frozen=True)
class Request:
    """What is asked for, but for the prompt itself.

    Attributes:
        seconds: of new music; None where `tokens` alone decide.
        tokens: bound on the new tokens of each piece; None for no other than `MOST_TOKENS`.
        num: how many pieces.
        best_of: how many are drawn, of which the `num` nearest to the prompt are kept; None for `num`.
        seed: the same seed, the same music.
        temperature: 0 takes the likeliest token; above 1 is wilder, below 1 tamer.
        top_k: only the k likeliest tokens; None for all.
        top_p: only the likeliest tokens that make up this probability; None for all.
        min_p: only tokens at least this share as likely as the likeliest; None for all.
        truncate: the types of token that top_k, top_p and min_p cut, with commas between them.
        max_empty_bars: of 2 s, in a row.
        max_rewinds: how often a piece goes back from one bar where it is stuck; 0 lets it be.
        from_second: the prompt begins with the first note at or after this time of the file; None for the
            file's beginning.
        prompt_seconds: how much of the file is the prompt, from its first note on; None for all. With
            `until_second`, the last so many seconds before that.
        until_second: the music goes on from this time of the file: the prompt is what begins before it;
            None for the file's end.
        only_new: the pieces are the new music alone, which begins where the prompt's last note does.
        instrument: the program of General MIDI, from 0, that plays the new notes; None for the prompt's, or a
            piano where there is none.
        density, loudness, register, key, polyphony, target, follow: as `Controls` has them.
    """

    seconds: float | None = 30.0
    tokens: int | None = None
    num: int = 1
    best_of: int | None = None
    seed: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = TOP_P
    min_p: float | None = None
    truncate: str = ",".join(TRUNCATED)
    max_empty_bars: int = MAX_EMPTY_BARS
    max_rewinds: int = MAX_REWINDS
    from_second: float | None = None
    prompt_seconds: float | None = None
    until_second: float | None = None
    only_new: bool = False
    instrument: int | None = None
    density: float = 0.0
    loudness: float = 0.0
    register: float = 0.0
    key: str | None = None
    polyphony: float = 0.0
    target: str | None = None
    follow: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Request:
        """What somebody gave, by name; None for what they left open.

        Who bounds the tokens and not the seconds gets as many tokens as that.
        """
        settings = {name: value for name, value in given.items() if value is not None}
        if "tokens" in settings:
            settings.setdefault("seconds", None)
        return cls(**settings)

    @property
    def choice(self) -> SamplingParams:
        """How tokens are chosen."""
        types = tuple(filter(None, (word.strip() for word in self.truncate.split(","))))
        return SamplingParams(self.temperature, self.top_k, self.top_p, self.min_p, types)

    @property
    def draws(self) -> int:
        """How many pieces are drawn."""
        return self.best_of or self.num

    @property
    def controls(self) -> Controls:
        """What is wished for."""
        return Controls(**{field.name: getattr(self, field.name) for field in fields(Controls)})

    @property
    def passage(self) -> dict[str, float | None]:
        """Which part of a file is the prompt, as `read_prompt` takes it."""
        start, seconds = self.from_second, self.prompt_seconds
        if self.until_second is not None and seconds is not None:
            start, seconds = max(start or 0.0, self.until_second - seconds), None
        return {"from_second": start, "seconds": seconds, "until_second": self.until_second}

    @property
    def most_tokens(self) -> int:
        """The bound on the tokens."""
        return MOST_TOKENS if self.tokens is None else self.tokens

    def faults(self) -> list[Fault]:
        """What is out of range, each named by its attribute."""
        lengths = f"must be above 0 and at most {LONGEST_SECONDS:,.0f}"
        rules = {
            "seconds": (self.seconds is None or 0 < self.seconds <= LONGEST_SECONDS, lengths),
            "tokens": (
                self.tokens is None or 1 <= self.tokens <= MOST_TOKENS,
                f"must be 1 to {MOST_TOKENS:,}",
            ),
            "num": (1 <= self.num <= MAX_PIECES, f"must be 1 to {MAX_PIECES}"),
            "best_of": (
                self.best_of is None or self.num <= self.best_of <= MAX_PIECES,
                f"must be num ({self.num}) to {MAX_PIECES}",
            ),
            "seed": (0 <= self.seed < 2**63, "must be at least 0 and below 2**63"),
            "max_empty_bars": (0 <= self.max_empty_bars <= 18_000, "must be 0 to 18,000"),
            "max_rewinds": (0 <= self.max_rewinds <= 100, "must be 0 to 100"),
            "from_second": (
                self.from_second is None or 0 <= self.from_second <= MAX_SECONDS,
                f"must be 0 to {MAX_SECONDS:,.0f}",
            ),
            "prompt_seconds": (
                self.prompt_seconds is None or 0 < self.prompt_seconds <= MAX_SECONDS,
                f"must be above 0 and at most {MAX_SECONDS:,.0f}",
            ),
            "until_second": (
                self.until_second is None or 0 < self.until_second <= MAX_SECONDS,
                f"must be above 0 and at most {MAX_SECONDS:,.0f}",
            ),
            "instrument": (
                self.instrument is None or 0 <= self.instrument <= 127,
                "must be 0 to 127, or a name such as violin",
            ),
        }
        found = [
            Fault(name, rule, str(getattr(self, name))) for name, (good, rule) in rules.items() if not good
        ]
        return found + self.choice.faults() + self.controls.faults()

    def seconds_after(self, prompt: Notes | None) -> float:
        """How much new music there may be behind a prompt.

        Raises:
            UserError: prompt and new music together are too long.
        """
        prompt_end = 0.0 if prompt is None else prompt.end_of_onsets
        room = LONGEST_SECONDS + LONGEST_PROMPT_SECONDS - prompt_end
        if (self.seconds or 0.0) > room or room <= 0:
            rule = f"prompt and new music must last at most {prompt_end + room:,.0f} seconds together"
            got = f"{prompt_end:,.0f} and {self.seconds or 0:,.0f}"
            raise UserError(Fault("seconds", rule, got, "take less of the prompt"))
        return room if self.seconds is None else self.seconds
