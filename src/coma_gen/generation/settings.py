"""Settings of a request as Python code gives them: by name, as Python's or numpy's numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Real
from typing import SupportsIndex, TypedDict

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.request import OF_A_PROMPT, Request
from coma_gen.midi.instruments import program_of

WHOLE_NUMBERS = frozenset(field.name for field in fields(Request) if "int" in str(field.type))
"""Settings that must be whole numbers."""
SWITCHES = frozenset(field.name for field in fields(Request) if "bool" in str(field.type))
"""Settings that must be true or false."""
WORDS = frozenset({"truncate"})
"""Settings that may be a list of words, too, in place of text with commas."""
TEXTS = frozenset({"key", "target", *WORDS})
"""Settings that must be text."""


class GenerateSettings(TypedDict, total=False):
    """What `MusicModel.generate` may be told, by name; None means the default, as if it were left out.

    Attributes:
        seconds: of new music; 30 by default, or no limit where `tokens` is given.
        tokens: the largest number of new tokens of each piece; no limit by default.
        best_of: so many pieces are drawn, and the `num` whose density, polyphony, loudness, length of notes
            and scale are nearest to the prompt's are returned, the nearest first; by default `num` are drawn.
        seed: the same seed gives the same music; 0 by default.
        temperature: 0 takes the most likely token, above 1 is wilder, below 1 is tamer; 1 by default.
        top_k: sample from the k most likely tokens only; all by default.
        top_p: sample from the most likely tokens that make up this probability; 0.85 by default, 1 for all.
        min_p: drop tokens less than this many times as likely as the most likely one; none by default.
        truncate: the types of token that top_k, top_p and min_p cut, of bar, position, pitch, velocity,
            duration and pedal, as a list or as text with commas; pitch by default.
        max_empty_bars: the most bars (of 2 s) without an event in a row; 20 by default.
        max_rewinds: how often a piece goes back from one bar where it is stuck on few keys or one figure;
            4 by default, 0 lets it be.
        from_second: the prompt begins with the first note at or after this second of the file.
        prompt_seconds: the length of the prompt, from its first note on; the whole file by default. With
            `until_second`, the last so many seconds before that.
        until_second: the continuation begins at this second of the file; what is before it is the prompt.
        only_new: True for a piece of the new music alone, which begins where the prompt's last note does.
        instrument: the General MIDI program of the new notes, a number from 0 or a name such as "violin".
        density: a pull towards more notes a second (above 0) or fewer (below 0); -3 to 3, 1 is a plain wish.
        loudness: the same towards louder or softer notes.
        register: the same towards higher or lower notes.
        key: a pull towards the notes of a key, such as "C major" or "f# minor", or "prompt" for that of the
            prompt.
        polyphony: more notes at once (above 0) or fewer (below 0); for models with this condition.
        target: values that the new music should have, of density (notes a second), loudness (velocity),
            register (pitch) and polyphony (notes at once), as a mapping or as text such as
            "density=5,loudness=60"; for models with these conditions.
        follow: False lets a model with conditions leave the prompt's density, loudness, register and
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
    """The request that settings make.

    Raises:
        UserError: one fault for each setting that is of the wrong kind or out of range.
        TypeError: a setting is unknown.
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
        faults += [Fault(name, "is for a prompt only") for name in OF_A_PROMPT if given.get(name)]
    if faults:
        raise UserError(*faults)
    return request


def read_setting(name: str, value: object) -> object:
    """A setting as `Request` holds it, or the fault that it has."""
    if value is None:
        return None
    if name in WORDS and isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if name == "target" and isinstance(value, Mapping):
        return ",".join(f"{condition}={wanted}" for condition, wanted in value.items())
    if name in SWITCHES:
        return value if isinstance(value, bool) else Fault(name, "must be true or false", repr(value))
    if name in TEXTS:
        return value if isinstance(value, str) else Fault(name, "must be text", repr(value))
    if name == "instrument" and isinstance(value, str):
        return read_instrument(value)
    number = _number(value, whole=name in WHOLE_NUMBERS)
    kind = "a whole number" if name in WHOLE_NUMBERS else "a number"
    return Fault(name, f"must be {kind}", repr(value)) if number is None else number


def read_instrument(name: str) -> int | Fault:
    """The program that a name means, or the fault that it has."""
    try:
        return program_of(name)
    except UserError as error:
        return error.faults[0]


def _number(value: object, *, whole: bool) -> float | None:
    """A Python or numpy number as one of Python; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if not whole:
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return operator.index(value) if isinstance(value, SupportsIndex) else None
