"""What one request to the served model says: its rows, held against what a row may hold and against limits.

A row is an object with `midi`, a MIDI file as base64 text, and the settings of `generation.request.Request`,
which are those of `coma-gen generate`. All may be left out or null. What is not known is refused: a setting
that is spelled wrong must not be passed over.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.generation.request import PROMPT_SETTINGS, Request
from coma_gen.generation.settings import SWITCHES, TEXTS, WHOLE_NUMBERS, read_instrument

MIDI = "midi"
SETTINGS = tuple(field.name for field in fields(Request))


@dataclass(frozen=True)
class Limits:
    """How much of a machine one request may take.

    Attributes:
        max_seconds: of new music in one piece.
        max_tokens: new ones in one piece, however many seconds they last.
        max_pieces: of one request, the `num` (or `best_of`) of all its rows together.
        max_prompt_bytes: of one prompt's MIDI file.
        at_once: requests that are worked on at the same time; the others wait for their turn.
    """

    max_seconds: float = 300.0
    max_tokens: int = 20_000
    max_pieces: int = 16
    max_prompt_bytes: int = 2**20
    at_once: int = 2

    def faults(self) -> list[Fault]:
        """Limits that let nothing through."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return [Fault(name, "must be above 0", str(value)) for name, value in values.items() if not value > 0]

    @property
    def max_body_bytes(self) -> int:
        """Of a request that holds as many prompts as it may, as base64 in JSON."""
        return self.max_pieces * (4 * (self.max_prompt_bytes // 3 + 1) + 4096)


@dataclass(frozen=True)
class ParsedRequest:
    """One row, understood.

    Attributes:
        name: how faults call its prompt.
        midi: the prompt; None for music from nothing.
        request: what is asked for.
    """

    name: str
    midi: bytes | None
    request: Request


def parse_request(rows: object, limits: Limits) -> list[ParsedRequest]:
    """Understands a request.

    Args:
        rows: what its `inputs` hold.
        limits: what it may ask for.

    Raises:
        UserError: with every fault of every row.
    """
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        rule = f"must be a list of objects with some of {', '.join((MIDI, *SETTINGS))}"
        raise UserError(Fault("inputs", rule, "an empty list" if rows == [] else _kind(rows)))
    if len(rows) > limits.max_pieces:
        raise UserError(Fault("inputs", f"must be at most {limits.max_pieces} rows", f"{len(rows)}"))
    faults: list[Fault] = []
    understood = [_row(row, f"inputs[{number}].", limits, faults) for number, row in enumerate(rows)]
    pieces = sum(each.request.draws for each in understood)
    if not faults and pieces > limits.max_pieces:
        rule = f"must ask for at most {limits.max_pieces} pieces together"
        faults.append(Fault("inputs", rule, f"{pieces}"))
    if faults:
        raise UserError(*faults)
    return understood


def parse_row(row: Mapping[Any, Any], limits: Limits, *, name: str) -> ParsedRequest:
    """Understands one row by itself.

    Args:
        row: `midi` and settings.
        limits: what it may ask for.
        name: how faults call its prompt.

    Raises:
        UserError: with every fault of it, each named by its key.
    """
    faults: list[Fault] = []
    understood = replace(_row(row, "", limits, faults), name=name)
    if not faults and understood.request.draws > limits.max_pieces:
        rule = f"must be at most {limits.max_pieces} here, and so must best_of"
        faults.append(Fault("num", rule, f"{understood.request.draws}"))
    if faults:
        raise UserError(*(replace(fault, where=name) if fault.where == MIDI else fault for fault in faults))
    return understood


def _row(row: Mapping[Any, Any], prefix: str, limits: Limits, faults: list[Fault]) -> ParsedRequest:
    """One row; what is wrong with it is added to `faults`, and left out of what is returned."""
    known = (MIDI, *SETTINGS)
    faults += [
        Fault(f"{prefix}{name}", f"must be one of {', '.join(known)}") for name in row if name not in known
    ]
    numbers: dict[str, float | str | None] = {}
    for name in SETTINGS:
        value = _setting(name, row.get(name))
        if isinstance(value, Fault):
            faults.append(Fault(f"{prefix}{name}", value.rule, value.got))
        else:
            numbers[name] = value
    if numbers.get("seconds") is None and numbers.get("tokens") is None:
        numbers["seconds"] = min(Request().seconds or 0.0, limits.max_seconds)
    request = Request.of(numbers)
    found = request.faults() or list(_beyond(request, limits))
    faults += [Fault(f"{prefix}{fault.where}", fault.rule, fault.got, fault.remedy) for fault in found]
    name, request = f"{prefix}{MIDI}", _within(request, limits)
    if row.get(MIDI) is None:
        cuts = [setting for setting in PROMPT_SETTINGS if row.get(setting)]
        faults += [Fault(f"{prefix}{setting}", f"is for a row with {MIDI} only") for setting in cuts]
        return ParsedRequest(name, None, request)
    midi = read_midi(row[MIDI], limits)
    if isinstance(midi, Fault):
        faults.append(Fault(name, midi.rule, midi.got))
        return ParsedRequest(name, None, request)
    return ParsedRequest(name, midi, request)


def _beyond(request: Request, limits: Limits) -> Iterator[Fault]:
    """What this server does not do, though another may."""
    for name, limit in (("seconds", limits.max_seconds), ("tokens", limits.max_tokens)):
        value = getattr(request, name)
        if value is not None and value > limit:
            yield Fault(name, f"must be at most {limit:,} here", f"{value:,}")


def _within(request: Request, limits: Limits) -> Request:
    """The same, its tokens bounded by this server's limit where it does not bound them itself."""
    given = {name: getattr(request, name) for name in SETTINGS}
    return Request(**given | {"tokens": given["tokens"] or limits.max_tokens})


def _setting(name: str, value: object) -> float | str | Fault | None:
    """A setting's value; None where it is left open."""
    if name in SWITCHES and value is not None:
        return value if isinstance(value, bool) else Fault("", "must be true or false", _kind(value))
    if name in TEXTS and value is not None:
        return value if isinstance(value, str) else Fault("", "must be text", _kind(value))
    if name == "instrument" and isinstance(value, str):
        return read_instrument(value)
    return read_number(value, whole=name in WHOLE_NUMBERS)


def read_number(value: object, *, whole: bool) -> float | Fault | None:
    """A number, or what is wrong with it; None where it is left open."""
    rule = "must be a whole number" if whole else "must be a number"
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Fault("", rule, _kind(value))
    if not whole:
        return float(value) if isinstance(value, float) or abs(value) < 2**63 else math.inf
    if isinstance(value, float) and (not math.isfinite(value) or value != int(value)):
        return Fault("", rule, repr(value))
    return int(value)


def read_midi(text: object, limits: Limits) -> bytes | Fault:
    """The bytes of a MIDI file, or what is wrong with its text."""
    rule = f"must be a MIDI file of at most {limits.max_prompt_bytes:,} bytes, as base64 text"
    if not isinstance(text, str):
        return Fault("", rule, _kind(text))
    if len(text) > 4 * (limits.max_prompt_bytes // 3 + 1):
        return Fault("", rule, f"{len(text):,} characters")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return Fault("", rule, "other text")


def _kind(value: object) -> str:
    """What kind of value JSON held, in JSON's words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
