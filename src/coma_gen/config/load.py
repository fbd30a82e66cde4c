"""Loads and validates params.yaml; all errors are reported together, by key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from coma_gen.config.rules import broken_rules
from coma_gen.config.schema import Params, Section
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.errors import Fault, UserError

MAX_NAME_LENGTH = 100
"""Characters of an unknown key that an error shows."""


def load_params(path: Path) -> Params:
    """Loads and validates a params file.

    Raises:
        UserError: With a fault for every key that is missing, unknown, of a wrong type, out of range or
            inconsistent with another.
    """
    return check_params(read_yaml(path), name=path.name)


def check_params(content: Any, *, name: str = "params.yaml") -> Params:
    """Validates parsed params.

    Args:
        content: Parsed content of the file.
        name: Name of the file in errors.

    Raises:
        UserError: As in `load_params`.
    """
    if not isinstance(content, dict):
        raise UserError(Fault(name, "must map section names to settings", type(content).__name__))
    sections: dict[str, Section] = {}
    faults = _find_unknown_keys(content, known=list(Params.model_fields), where="")
    for key, field in Params.model_fields.items():
        kind: type[Section] = field.annotation  # type: ignore[assignment]
        if key not in content:
            faults.append(Fault(key, "this section must be there", "none"))
            continue
        try:
            sections[key] = kind.model_validate(_freeze_lists(content[key]))
        except ValidationError as error:
            faults += _explain_errors(error, section=key, kind=kind)
    faults += broken_rules(sections)
    if faults:
        raise UserError(
            *(Fault(f"{name}: {fault.where}", fault.rule, fault.got, fault.remedy) for fault in faults)
        )
    return Params(**sections)


def _freeze_lists(value: Any) -> Any:
    """Converts lists to tuples, since sections are frozen."""
    if isinstance(value, list):
        return tuple(_freeze_lists(item) for item in value)
    if isinstance(value, dict):
        return {key: _freeze_lists(item) for key, item in value.items()}
    return value


def _find_unknown_keys(content: dict[Any, Any], *, known: list[str], where: str) -> list[Fault]:
    faults = []
    for key in content:
        if key not in known:
            name = key if isinstance(key, str) else _format_value(key)
            near = difflib.get_close_matches(name[:MAX_NAME_LENGTH], known, n=1)
            remedy = f"did you mean '{near[0]}'?" if near else f"known keys are {', '.join(known)}"
            faults.append(Fault(f"{where}{name[:MAX_NAME_LENGTH]}", "there is no such key", "", remedy))
    return faults


def _explain_errors(error: ValidationError, *, section: str, kind: type[Section]) -> list[Fault]:
    """Converts validation errors of a section to faults, one per key.

    A list with invalid items is not also reported as too short.
    """
    faults: dict[str, Fault] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "extra_forbidden":
            faults |= {
                f.where: f
                for f in _find_unknown_keys(
                    {detail["loc"][0]: 0}, known=list(kind.model_fields), where=f"{section}."
                )
            }
            continue
        where = f"{section}" + "".join(f".{part}" for part in _location(detail, kind))
        if detail["type"] == "too_short" and any(other.startswith(f"{where}.") for other in faults):
            continue
        faults.setdefault(where, Fault(where, _describe_rule(detail), _describe_input(detail)))
    return list(faults.values())


def _location(detail: ErrorDetails, kind: type[Section]) -> list[int | str]:
    """Returns the key and list indices of an error, without pydantic's names of union members."""
    return [part for part in detail["loc"] if isinstance(part, int) or part in kind.model_fields]


RULES_BY_TYPE = {
    "finite_number": "must be a finite number",
    "model_type": "must map keys to values",
    "model_attributes_type": "must map keys to values",
    "string_pattern_mismatch": "is not of the form that this key needs",
    "tuple_type": "must be a list",
    "int_type": "must be a whole number",
    "too_long": "has more items than it may",
    "too_short": "must have at least one item",
}


def _describe_rule(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return (
            "one more item must be there" if isinstance(detail["loc"][-1], int) else "this key must be there"
        )
    if detail["loc"] == ("maestro_url",):
        return "must be an https:// address"
    if detail["loc"] in (("maestro_sha256",), ("teacher_digest",)):
        return "must be a SHA-256: 64 digits from 0-9 and a-f"
    message = detail["msg"].replace("Input should be", "must be").replace("Input should", "must")
    return RULES_BY_TYPE.get(detail["type"], message.replace("must be a valid ", "must be a "))


def _describe_input(detail: ErrorDetails) -> str:
    return "" if detail["type"] == "missing" else _format_value(detail["input"])


def _format_value(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python refuses to convert integers of more than 4,300 digits
        return "a number of thousands of digits"
