"""Parses YAML like DVC, so that the code and `dvc params diff` agree on every scalar.

PyYAML follows YAML 1.1: `1e-5` is a string, `no` is False, `010` is 8, `1:30` is 90. DVC follows YAML 1.2,
where they are a number, a string, 10 and a string. This loader is PyYAML's safe loader with the scalar rules
of YAML 1.2; like DVC it rejects duplicate keys. It also rejects documents that would exhaust memory or the
stack: aliases that expand to too many values, and deep nesting.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import check_file

BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
INT = re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+)$")
FLOAT = re.compile(
    r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


MAX_BYTES = 2**20
MAX_VALUES = 100_000
"""Maximum number of keys and values of a document, with aliases expanded."""

MAX_DEPTH = 100
"""Maximum nesting depth; Python's recursion limit is reached at about 300."""

_NOT_YAML = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Exceptions that PyYAML raises for invalid documents; all but the first are bugs, as with `!!bool maybe`."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalar rules of YAML 1.2."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth > MAX_DEPTH:
            problem = f"it is nested more than {MAX_DEPTH} deep"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, problem, mark)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _count_values(node, {}) > MAX_VALUES:
            problem = f"it expands to more than {MAX_VALUES:,} values, or contains itself"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        known_keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in known_keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the duplicate key '{key.value}'", key.start_mark
                )
            known_keys.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Counts the nodes of a node with aliases expanded; more than `MAX_VALUES` for a recursive one."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        known[id(node)] = 1 + sum(_count_values(part, known) for part in flat)
    return known[id(node)]


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2])
    return sign * (int(digits[2:], base) if base else int(digits))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_RESOLVED_TAGS = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag in _RESOLVED_TAGS]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", INT, list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def parse_yaml(text: str, *, name: str) -> Any:
    """Parses one YAML document.

    Args:
        text: The document.
        name: Name of the file in errors.

    Raises:
        UserError: If it is not YAML, has duplicate keys, or is too large or too deeply nested.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, with other scalar rules
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise UserError(Fault(where, "must be YAML", str(getattr(error, "problem", None) or error))) from None


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        UserError: If it is missing, too large, not text or not YAML.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise UserError(Fault(str(path), "this file must exist", "no such file")) from None
    except OSError as error:
        raise UserError(Fault(str(path), "must be a readable file", error.strerror or str(error))) from None
    except UnicodeDecodeError as error:
        raise UserError(Fault(str(path), "must be UTF-8 text", str(error))) from None
    if len(content) > MAX_BYTES:
        raise UserError(Fault(str(path), f"must have at most {MAX_BYTES:,} bytes", "more"))
    return parse_yaml(text, name=path.name)
