"""params.yaml to `Params`: everything that is wrong is reported together, by key, before any work."""

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

LONGEST_NAME = 100
"""Characters that are shown of a key that there is none of."""


def load_params(path: Path) -> Params:
    """Reads and checks a params file.

    Raises:
        UserError: with a fault for every key that is missing, unknown, of a wrong type, out of range or at
        odds with another.
    """
    return check_params(read_yaml(path), name=path.name)


def check_params(content: Any, *, name: str = "params.yaml") -> Params:
    """Checks parsed params.

    Args:
        content: what the file holds.
        name: how to call the file in errors.

    Raises:
        UserError: as `load_params`.
    """
    if not isinstance(content, dict):
        raise UserError(Fault(name, "must map section names to settings", type(content).__name__))
    sections: dict[str, Section] = {}
    faults = _unknown(content, known=list(Params.model_fields), where="")
    for key, field in Params.model_fields.items():
        kind: type[Section] = field.annotation  # type: ignore[assignment]
        if key not in content:
            faults.append(Fault(key, "this section must be there", "none"))
            continue
        try:
            sections[key] = kind.model_validate(_plain(content[key]))
        except ValidationError as error:
            faults += _explained(error, section=key, kind=kind)
    faults += broken_rules(sections)
    if faults:
        raise UserError(
            *(Fault(f"{name}: {fault.where}", fault.rule, fault.got, fault.remedy) for fault in faults)
        )
    return Params(**sections)


def _plain(value: Any) -> Any:
    """Lists as tuples: the sections are frozen, and so are their sequences."""
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _unknown(content: dict[Any, Any], *, known: list[str], where: str) -> list[Fault]:
    faults = []
    for key in content:
        if key not in known:
            name = key if isinstance(key, str) else _written(key)
            near = difflib.get_close_matches(name[:LONGEST_NAME], known, n=1)
            remedy = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
            faults.append(Fault(f"{where}{name[:LONGEST_NAME]}", "there is no such key", "", remedy))
    return faults


def _explained(error: ValidationError, *, section: str, kind: type[Section]) -> list[Fault]:
    """The faults of a section, one a key; a list whose items are at fault is not also called too short."""
    faults: dict[str, Fault] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "extra_forbidden":
            faults |= {
                f.where: f
                for f in _unknown({detail["loc"][0]: 0}, known=list(kind.model_fields), where=f"{section}.")
            }
            continue
        where = f"{section}" + "".join(f".{part}" for part in _named(detail, kind))
        if detail["type"] == "too_short" and any(other.startswith(f"{where}.") for other in faults):
            continue
        faults.setdefault(where, Fault(where, _rule(detail), _got(detail)))
    return list(faults.values())


def _named(detail: ErrorDetails, kind: type[Section]) -> list[int | str]:
    """The location: the key and the positions in its lists, without pydantic's own names for the arms of a
    union.
    """
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


def _rule(detail: ErrorDetails) -> str:
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


def _got(detail: ErrorDetails) -> str:
    return "" if detail["type"] == "missing" else _written(detail["input"])


def _written(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
