"""A generation request: one type and one set of bounds for the command line, Python and serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.controls import Controls
from coma_gen.generation.sampling import TOP_P, TRUNCATED, SamplingParams
from coma_gen.midi.io import MAX_SECONDS
from coma_gen.midi.notes import Notes

MAX_NEW_SECONDS, MAX_PROMPT_SECONDS = 36_000.0, 3_600.0
"""Ten hours of new music after one hour of prompt: a piece stays below the maximum length of a MIDI file."""
MAX_TOKENS = 10_000_000
MAX_PIECES = 256
PROMPT_SETTINGS = ("from_second", "prompt_seconds", "until_second", "only_new", "best_of")
"""Settings that require a prompt."""
MAX_EMPTY_BARS = 20
"""A bar lasts 2 s. Of MAESTRO's 1,276 performances, 51% contain a gap of more than 4 s; all but one have at
most 20 consecutive empty bars, and that one has 24."""
MAX_REWINDS = 4


@dataclass(frozen=True)
class Request:
    """All settings of a generation request except the prompt.

    Attributes:
        seconds: Length of the new music; None to limit it by `tokens` alone.
        tokens: Maximum number of new tokens per piece; None for `MAX_TOKENS`.
        num: Number of pieces.
        best_of: Number of draws from which the `num` nearest to the prompt are selected; None for `num`.
        seed: Seed of the random numbers; the same seed gives the same music.
        temperature: 0 takes the most likely token; below 1 is more predictable, above 1 less.
        top_k: Sample from the k most likely tokens; None for all.
        top_p: Sample from the most likely tokens that reach this total probability; None for all.
        min_p: Minimum probability of a token relative to the most likely one; None keeps all.
        truncate: Comma-separated types of token to which top_k, top_p and min_p apply.
        max_empty_bars: Maximum number of consecutive empty bars (of 2 s).
        max_rewinds: How often a piece may be rewound from one bar to leave a loop; 0 disables rewinding.
        from_second: The prompt begins with the first note at or after this time of the file; None for the
            beginning of the file.
        prompt_seconds: Length of the prompt from its first note; None for all. With `until_second`, the last
            `prompt_seconds` before that time.
        until_second: The prompt is the notes before this time of the file; None for the end of the file. The
            new notes follow the last of them, which may be earlier than this time.
        only_new: Return the new music alone, beginning where the prompt's last note begins.
        instrument: General MIDI program (from 0) of the new notes; None for the prompt's, or a piano without
            one.
        density, loudness, register, key, polyphony, target, follow: See `Controls`.
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
        """Builds a request from settings by name; None means the default.

        With `tokens` and without `seconds`, the length is limited by the tokens alone.
        """
        settings = {name: value for name, value in given.items() if value is not None}
        if "tokens" in settings:
            settings.setdefault("seconds", None)
        return cls(**settings)

    @property
    def sampling(self) -> SamplingParams:
        """The sampling parameters."""
        types = tuple(filter(None, (word.strip() for word in self.truncate.split(","))))
        return SamplingParams(self.temperature, self.top_k, self.top_p, self.min_p, types)

    @property
    def draws(self) -> int:
        """The number of pieces to generate."""
        return self.best_of or self.num

    @property
    def controls(self) -> Controls:
        """The requested properties of the music."""
        return Controls(**{field.name: getattr(self, field.name) for field in fields(Controls)})

    @property
    def passage(self) -> dict[str, float | None]:
        """The part of the file that is the prompt, as arguments of `read_prompt`."""
        start, seconds = self.from_second, self.prompt_seconds
        if self.until_second is not None and seconds is not None:
            start, seconds = max(start or 0.0, self.until_second - seconds), None
        return {"from_second": start, "seconds": seconds, "until_second": self.until_second}

    @property
    def max_tokens(self) -> int:
        """The maximum number of new tokens per piece."""
        return MAX_TOKENS if self.tokens is None else self.tokens

    def faults(self) -> list[Fault]:
        """Lists the settings that are out of range, each named by its attribute."""
        lengths = f"must be above 0 and at most {MAX_NEW_SECONDS:,.0f}"
        rules = {
            "seconds": (self.seconds is None or 0 < self.seconds <= MAX_NEW_SECONDS, lengths),
            "tokens": (
                self.tokens is None or 1 <= self.tokens <= MAX_TOKENS,
                f"must be 1 to {MAX_TOKENS:,}",
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
        return found + self.sampling.faults() + self.controls.faults()

    def seconds_after(self, prompt: Notes | None) -> float:
        """Returns the maximum length of new music after a prompt.

        Raises:
            UserError: Prompt and new music together are too long.
        """
        prompt_end = 0.0 if prompt is None else prompt.end_of_onsets
        remaining = MAX_NEW_SECONDS + MAX_PROMPT_SECONDS - prompt_end
        if (self.seconds or 0.0) > remaining or remaining <= 0:
            rule = f"prompt and new music must last at most {prompt_end + remaining:,.0f} seconds together"
            got = f"{prompt_end:,.0f} and {self.seconds or 0:,.0f}"
            raise UserError(Fault("seconds", rule, got, "take less of the prompt"))
        return remaining if self.seconds is None else self.seconds
