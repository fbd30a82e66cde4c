"""Trees of settings and measures as MLflow takes them: flat names, numbers as they are, text within limits.

A setting's name is its path joined by dots (`train.learning_rate`), as DVC writes it; a measure's is its
stage and path joined by slashes (`evaluate/test/bits_per_note`), which MLflow's charts group by. Numbers pass
through exactly. A list of settings is one setting; the items of a list of measures are measures, by position.
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
"""Characters that MLflow keeps of a name, a param and a tag."""
Keys = tuple[str, ...]


@dataclass(frozen=True)
class Measures:
    """A flat metrics file.

    Attributes:
        numbers: name -> value.
        texts: name -> text of what is no number: strings, true and false. Nulls are nothing.
    """

    numbers: Mapping[str, float]
    texts: Mapping[str, str]


def flat_params(params: Mapping[str, Any]) -> dict[str, str]:
    """Settings as MLflow's params: text as it is, all else as JSON: null and [32, 128] read as in YAML."""
    leaves = dict(_leaves(params, (), items_of_lists=False))
    names = _names(list(leaves), separator=".")
    return {names[path]: shortened(_written(value), MAX_PARAM) for path, value in leaves.items()}


def flat_metrics(stage: str, content: Any) -> Measures:
    """What metrics/<stage>.json holds, prefixed by the stage."""
    leaves = dict(_leaves(content, (stage,), items_of_lists=True))
    names = _names(list(leaves), separator="/")
    numbers = {names[path]: float(value) for path, value in leaves.items() if _is_number(value)}
    texts = {
        names[path]: shortened(_written(value), MAX_TAG)
        for path, value in leaves.items()
        if value is not None and not _is_number(value)
    }
    return Measures(numbers=numbers, texts=texts)


def shortened(text: str, limit: int) -> str:
    """`text` in at most `limit` characters; a cut one ends in a digest, so that different texts stay so."""
    if len(text) <= limit:
        return text
    end = f"... ({len(text)} characters, SHA-256 {_digest(text)})"
    return text[: limit - len(end)] + end


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _leaves(value: Any, path: Keys, *, items_of_lists: bool) -> Iterator[tuple[Keys, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)), items_of_lists=items_of_lists)
    elif items_of_lists and isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _leaves(item, (*path, str(position)), items_of_lists=True)
    else:
        yield path, value


def _names(paths: list[Keys], *, separator: str) -> dict[Keys, str]:
    """A name for each path, of letters that MLflow takes; paths that would share a name get a digest each."""
    plain = {path: separator.join(_allowed(part) for part in path) for path in paths}
    shared = Counter(plain.values())
    names = {}
    for path, name in plain.items():
        if len(name) > MAX_NAME or shared[name] > 1:
            name = f"{name[: MAX_NAME - 13]}-{_digest(json.dumps(path))}"
        names[path] = name
    return names


def _allowed(part: str) -> str:
    clean = re.sub(r"[^\w.\- ]", "_", part)
    return "_" if clean in ("", ".", "..") else clean


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
