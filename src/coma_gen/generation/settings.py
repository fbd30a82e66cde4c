"""Validates the settings of a request that are passed from Python, by name, as Python or numpy numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Real
from typing import SupportsIndex, TypedDict

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.request import PROMPT_SETTINGS, Request
from coma_gen.midi.instruments import program_of

WHOLE_NUMBERS = frozenset(field.name for field in fields(Request) if "int" in str(field.type))
"""Settings that must be whole numbers."""
SWITCHES = frozenset(field.name for field in fields(Request) if "bool" in str(field.type))
"""Settings that must be true or false."""
WORDS = frozenset({"truncate"})
"""Settings that may be a list of words instead of comma-separated text."""
TEXTS = frozenset({"key", "target", *WORDS})
"""Settings that must be text."""


class GenerateSettings(TypedDict, total=False):
    """Keyword settings of `MusicModel.generate`; None means the default.

    Attributes:
        seconds: Length of the new music; 30 by default, or no limit where `tokens` is given.
        tokens: Maximum number of new tokens per piece; no limit by default.
        best_of: Number of pieces to draw, of which the `num` nearest to the prompt in density, polyphony,
            loudness, note length and scale are returned, the nearest first; by default `num` are drawn.
        seed: Seed of the random numbers: the same seed gives the same music; 0 by default.
        temperature: 0 takes the most likely token; below 1 is more predictable, above 1 less; 1 by default.
        top_k: Sample from the k most likely tokens only; all by default.
        top_p: Sample from the most likely tokens that reach this total probability; 0.85 by default, 1 for
            all.
        min_p: Minimum probability of a token relative to the most likely one; no minimum by default.
        truncate: Types of token to which top_k, top_p and min_p apply, of bar, position, pitch, velocity,
            duration and pedal, as a list or as comma-separated text; pitch by default.
        max_empty_bars: Maximum number of consecutive bars (of 2 s) without an event; 20 by default.
        max_rewinds: How often a piece may be rewound from one bar where it loops on few keys or one figure;
            4 by default, 0 disables rewinding.
        from_second: The prompt begins with the first note at or after this second of the file.
        prompt_seconds: Length of the prompt from its first note; the whole file by default. With
            `until_second`, the last `prompt_seconds` before that time.
        until_second: The prompt is the notes before this second of the file; the new notes follow the last of
            them. The end of the file by default.
        only_new: True returns the new music alone, beginning where the prompt's last note begins.
        instrument: General MIDI program of the new notes, a number from 0 or a name such as "violin".
        density: More notes per second (above 0) or fewer (below 0); -3 to 3, 1 is a moderate change.
        loudness: Louder notes (above 0) or softer ones (below 0); -3 to 3.
        register: Higher notes (above 0) or lower ones (below 0); -3 to 3.
        key: A key whose notes are preferred, such as "C major" or "f# minor", or "prompt" for the key of the
            prompt.
        polyphony: More simultaneous notes (above 0) or fewer (below 0); for models with this condition.
        target: Target values of density (notes per second), loudness (velocity), register (pitch) and
            polyphony (simultaneous notes), as a mapping or as text such as "density=5,loudness=60"; for
            models with these conditions.
        follow: False lets a model with conditions depart from the prompt's density, loudness, register and
            polyphony; True by default.
    """

    seconds: float | None
    tokens: int | None
    best_of: int | None
    seed: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    truncate: str | Sequence[str] | None
    max_empty_bars: int | None
    max_rewinds: int | None
    from_second: float | None
    prompt_seconds: float | None
    until_second: float | None
    only_new: bool | None
    instrument: int | str | None
    density: float | None
    loudness: float | None
    register: float | None
    key: str | None
    polyphony: float | None
    target: str | Mapping[str, float] | None
    follow: bool | None


def build_request(given: Mapping[str, object], *, has_prompt: bool) -> Request:
    """Builds a request from settings.

    Raises:
        UserError: One fault for each setting of the wrong type or out of range.
        TypeError: A setting is unknown.
    """
    known = Request.__dataclass_fields__
    if unknown := sorted(set(given) - set(known)):
        raise TypeError(f"generate() has no setting {unknown[0]!r}; it has {', '.join(known)}")
    settings: dict[str, object] = {}
    faults: list[Fault] = []
    for name, value in given.items():
        settings[name] = read_setting(name, value)
        if isinstance(fault := settings[name], Fault):
            faults.append(fault)
    request = Request.of(settings) if not faults else Request()
    faults += request.faults()
    if not has_prompt:
        faults += [Fault(name, "is for a prompt only") for name in PROMPT_SETTINGS if given.get(name)]
    if faults:
        raise UserError(*faults)
    return request


def read_setting(name: str, value: object) -> object:
    """Converts a setting to the type of `Request`; returns the fault of an invalid one."""
    if value is None:
        return None
    if name in WORDS and isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if name == "target" and isinstance(value, Mapping):
        return ",".join(f"{condition}={target}" for condition, target in value.items())
    if name in SWITCHES:
        return value if isinstance(value, bool) else Fault(name, "must be true or false", repr(value))
    if name in TEXTS:
        return value if isinstance(value, str) else Fault(name, "must be text", repr(value))
    if name == "instrument" and isinstance(value, str):
        return read_instrument(value)
    number = _convert_number(value, whole=name in WHOLE_NUMBERS)
    kind = "a whole number" if name in WHOLE_NUMBERS else "a number"
    return Fault(name, f"must be {kind}", repr(value)) if number is None else number


def read_instrument(name: str) -> int | Fault:
    """Returns the General MIDI program of a name, or the fault of an unknown name."""
    try:
        return program_of(name)
    except UserError as error:
        return error.faults[0]


def _convert_number(value: object, *, whole: bool) -> float | None:
    """Converts a Python or numpy number to a Python number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if not whole:
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return operator.index(value) if isinstance(value, SupportsIndex) else None
