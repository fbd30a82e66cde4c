"""Parses and validates a request to the served model.

A row is an object with `midi`, a MIDI file as base64 text, and the settings of `generation.request.Request`,
which are those of `coma-gen generate`. All keys are optional and may be null. Unknown keys are errors, so
that a misspelled setting is not silently ignored.
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
    """Limits on the resources of one request.

    Attributes:
        max_seconds: Maximum seconds of new music per piece.
        max_tokens: Maximum number of new tokens per piece.
        max_pieces: Maximum number of pieces per request: the sum of `num` (or `best_of`) over its rows.
        max_prompt_bytes: Maximum size of a prompt's MIDI file.
        at_once: Maximum number of concurrent requests; others wait.
    """

    max_seconds: float = 300.0
    max_tokens: int = 20_000
    max_pieces: int = 16
    max_prompt_bytes: int = 2**20
    at_once: int = 2

    def faults(self) -> list[Fault]:
        """Lists the limits that are not positive."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return [Fault(name, "must be above 0", str(value)) for name, value in values.items() if not value > 0]

    @property
    def max_body_bytes(self) -> int:
        """Size of a request with the maximum number and size of prompts, as base64 in JSON."""
        return self.max_pieces * (4 * (self.max_prompt_bytes // 3 + 1) + 4096)


@dataclass(frozen=True)
class ParsedRequest:
    """One parsed row.

    Attributes:
        name: Name of the prompt in error messages.
        midi: The prompt, or None for unprompted music.
        request: Settings of the request.
    """

    name: str
    midi: bytes | None
    request: Request


def parse_request(rows: object, limits: Limits) -> list[ParsedRequest]:
    """Parses a request.

    Args:
        rows: The value of `inputs`.
        limits: Limits of one request.

    Raises:
        UserError: With every fault of every row.
    """
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        rule = f"must be a list of objects with some of {', '.join((MIDI, *SETTINGS))}"
        raise UserError(Fault("inputs", rule, "an empty list" if rows == [] else _describe_type(rows)))
    if len(rows) > limits.max_pieces:
        raise UserError(Fault("inputs", f"must be at most {limits.max_pieces} rows", f"{len(rows)}"))
    faults: list[Fault] = []
    parsed = [_parse_row(row, f"inputs[{number}].", limits, faults) for number, row in enumerate(rows)]
    pieces = sum(row.request.draws for row in parsed)
    if not faults and pieces > limits.max_pieces:
        rule = f"must ask for at most {limits.max_pieces} pieces together"
        faults.append(Fault("inputs", rule, f"{pieces}"))
    if faults:
        raise UserError(*faults)
    return parsed


def parse_row(row: Mapping[Any, Any], limits: Limits, *, name: str) -> ParsedRequest:
    """Parses a single row.

    Args:
        row: `midi` and settings.
        limits: Limits of one request.
        name: Name of the prompt in error messages.

    Raises:
        UserError: With every fault, each named by its key.
    """
    faults: list[Fault] = []
    parsed = replace(_parse_row(row, "", limits, faults), name=name)
    if not faults and parsed.request.draws > limits.max_pieces:
        rule = f"must be at most {limits.max_pieces} here, and so must best_of"
        faults.append(Fault("num", rule, f"{parsed.request.draws}"))
    if faults:
        raise UserError(*(replace(fault, where=name) if fault.where == MIDI else fault for fault in faults))
    return parsed


def _parse_row(row: Mapping[Any, Any], prefix: str, limits: Limits, faults: list[Fault]) -> ParsedRequest:
    """Parses one row; its faults are appended to `faults`, and invalid settings are omitted."""
    known = (MIDI, *SETTINGS)
    faults += [
        Fault(f"{prefix}{name}", f"must be one of {', '.join(known)}") for name in row if name not in known
    ]
    numbers: dict[str, float | str | None] = {}
    for name in SETTINGS:
        value = _parse_setting(name, row.get(name))
        if isinstance(value, Fault):
            faults.append(Fault(f"{prefix}{name}", value.rule, value.got))
        else:
            numbers[name] = value
    if numbers.get("seconds") is None and numbers.get("tokens") is None:
        numbers["seconds"] = min(Request().seconds or 0.0, limits.max_seconds)
    request = Request.of(numbers)
    found = request.faults() or list(_check_limits(request, limits))
    faults += [Fault(f"{prefix}{fault.where}", fault.rule, fault.got, fault.remedy) for fault in found]
    name, request = f"{prefix}{MIDI}", _bound_tokens(request, limits)
    if row.get(MIDI) is None:
        cuts = [setting for setting in PROMPT_SETTINGS if row.get(setting)]
        faults += [Fault(f"{prefix}{setting}", f"is for a row with {MIDI} only") for setting in cuts]
        return ParsedRequest(name, None, request)
    midi = read_midi(row[MIDI], limits)
    if isinstance(midi, Fault):
        faults.append(Fault(name, midi.rule, midi.got))
        return ParsedRequest(name, None, request)
    return ParsedRequest(name, midi, request)


def _check_limits(request: Request, limits: Limits) -> Iterator[Fault]:
    """Yields a fault for each setting beyond the limits of this server."""
    for name, limit in (("seconds", limits.max_seconds), ("tokens", limits.max_tokens)):
        value = getattr(request, name)
        if value is not None and value > limit:
            yield Fault(name, f"must be at most {limit:,} here", f"{value:,}")


def _bound_tokens(request: Request, limits: Limits) -> Request:
    """Sets the number of tokens to the limit of this server, unless the request sets it."""
    given = {name: getattr(request, name) for name in SETTINGS}
    return Request(**given | {"tokens": given["tokens"] or limits.max_tokens})


def _parse_setting(name: str, value: object) -> float | str | Fault | None:
    """Parses the value of a setting; None if it is not set."""
    if name in SWITCHES and value is not None:
        return value if isinstance(value, bool) else Fault("", "must be true or false", _describe_type(value))
    if name in TEXTS and value is not None:
        return value if isinstance(value, str) else Fault("", "must be text", _describe_type(value))
    if name == "instrument" and isinstance(value, str):
        return read_instrument(value)
    return read_number(value, whole=name in WHOLE_NUMBERS)


def read_number(value: object, *, whole: bool) -> float | Fault | None:
    """Parses a number; returns a fault if it is invalid, or None if it is not set."""
    rule = "must be a whole number" if whole else "must be a number"
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Fault("", rule, _describe_type(value))
    if not whole:
        return float(value) if isinstance(value, float) or abs(value) < 2**63 else math.inf
    if isinstance(value, float) and (not math.isfinite(value) or value != int(value)):
        return Fault("", rule, repr(value))
    return int(value)


def read_midi(text: object, limits: Limits) -> bytes | Fault:
    """Decodes a MIDI file from base64; returns a fault if the text is invalid."""
    rule = f"must be a MIDI file of at most {limits.max_prompt_bytes:,} bytes, as base64 text"
    if not isinstance(text, str):
        return Fault("", rule, _describe_type(text))
    if len(text) > 4 * (limits.max_prompt_bytes // 3 + 1):
        return Fault("", rule, f"{len(text):,} characters")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return Fault("", rule, "other text")


def _describe_type(value: object) -> str:
    """Names the JSON type of a value, for error messages."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
