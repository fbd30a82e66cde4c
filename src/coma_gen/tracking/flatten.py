"""Flattens nested params and metrics to MLflow's flat names, within MLflow's length limits.

A param is named by its path joined with dots (`train.learning_rate`), as in DVC. A metric is named by its
stage and path joined with slashes (`evaluate/test/bits_per_note`), by which MLflow groups charts. Numbers are
passed through exactly. A list of params is one param; each item of a list of metrics is a metric, named by
its index.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_NAME = 250
MAX_PARAM = 6000
MAX_TAG = 5000
"""Maximum lengths in MLflow of a name, a param and a tag."""
Keys = tuple[str, ...]


@dataclass(frozen=True)
class Measures:
    """A flattened metrics file.

    Attributes:
        numbers: Name -> value.
        texts: Name -> text of non-numbers: strings and booleans. Nulls are omitted.
    """

    numbers: Mapping[str, float]
    texts: Mapping[str, str]


def flat_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Flattens params for MLflow: strings unchanged, other values as JSON (such as null and [32, 128])."""
    leaves = dict(_iterate_leaves(params, (), items_of_lists=False))
    names = _choose_names(list(leaves), separator=".")
    return {names[path]: shorten(_format_value(value), MAX_PARAM) for path, value in leaves.items()}


def flat_metrics(stage: str, content: Any) -> Measures:
    """Flattens the content of metrics/<stage>.json, with names prefixed by the stage."""
    leaves = dict(_iterate_leaves(content, (stage,), items_of_lists=True))
    names = _choose_names(list(leaves), separator="/")
    numbers = {names[path]: float(value) for path, value in leaves.items() if _is_number(value)}
    texts = {
        names[path]: shorten(_format_value(value), MAX_TAG)
        for path, value in leaves.items()
        if value is not None and not _is_number(value)
    }
    return Measures(numbers=numbers, texts=texts)


def shorten(text: str, limit: int) -> str:
    """Truncates a text to `limit` characters; a digest at the end keeps different texts distinct."""
    if len(text) <= limit:
        return text
    end = f"... ({len(text)} characters, SHA-256 {_digest(text)})"
    return text[: limit - len(end)] + end


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _iterate_leaves(value: Any, path: Keys, *, items_of_lists: bool) -> Iterator[tuple[Keys, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _iterate_leaves(item, (*path, str(key)), items_of_lists=items_of_lists)
    elif items_of_lists and isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _iterate_leaves(item, (*path, str(position)), items_of_lists=True)
    else:
        yield path, value


def _choose_names(paths: list[Keys], *, separator: str) -> dict[Keys, str]:
    """Chooses a name with characters that MLflow allows for each path; name collisions get a digest each."""
    plain = {path: separator.join(_sanitize(part) for part in path) for path in paths}
    shared = Counter(plain.values())
    names = {}
    for path, name in plain.items():
        if len(name) > MAX_NAME or shared[name] > 1:
            name = f"{name[: MAX_NAME - 13]}-{_digest(json.dumps(path))}"
        names[path] = name
    return names


def _sanitize(part: str) -> str:
    clean = re.sub(r"[^\w.\- ]", "_", part)
    return "_" if clean in ("", ".", "..") else clean


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
