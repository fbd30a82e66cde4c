"""Naming: retired words are not part of any identifier.

`python tests/test_names.py [FOLDER]` counts each of them in the Python code of a checkout.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "stages", "benchmarks", "tests", "examples", ".ci")
RETIRED = {
    "artefact": "artifact",
    "centre": "center, as American spelling has it",
    "colour": "color, as American spelling has it",
    "desk": "buffers; in tests the current directory",
    "door": "the request guard, the client",
    "guarded": "isolated",
    "heard": "sounding, audible",
    "holding": "active",
    "holdings": "data checks",
    "joint": "the splice, the end of the prompt",
    "kept": "selected, cached, retained; a mask; the files of a run",
    "licence": "license, as American spelling has it",
    "memorisation": "memorization, as American spelling has it",
    "mirror": "a sync, a replica",
    "moment": "a time, a second",
    "neighbour": "neighbor, as American spelling has it",
    "place": "an index, offset, position or slot; a path; a device",
    "seen": "visited, visible; the receptive field",
    "settle": "replace durably",
    "sight": "context, the visible span",
    "stretch": "a passage, a span",
    "surroundings": "environment checks",
    "trainee": "the train state",
}
"""Retired word -> what the concept is called, by where it stands."""
FORMS = {
    **{word: word for word in RETIRED},
    **{f"{word}s": word for word in RETIRED if not word.endswith("s")},
    "mirrored": "mirror",
    "settled": "settle",
    "stretches": "stretch",
    "stretched": "stretch",
    "surrounding": "surroundings",
}
"""Form of a word -> the word. Others are ordinary English: rows are placed, prompts are joined."""
ALLOWED = {
    "_add_in_place": "an operation in place, as torch says it: the result goes into its own argument",
}
"""Identifier -> why a retired word in it is the field's own."""


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, identifier) of all that a module defines, imports, reads and passes by name."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ClassDef(name=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield node.lineno, name
            case ast.Attribute(attr=name):
                yield node.end_lineno or node.lineno, name
            case ast.alias(name=module, asname=name):
                yield from ((node.lineno, each) for each in (*module.split("."), name) if each)
            case ast.ImportFrom(module=str(module)):
                yield from ((node.lineno, each) for each in module.split("."))
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                yield from ((node.lineno, each) for each in names)


def words(identifier: str) -> list[str]:
    """The words of an identifier in snake_case, camelCase or CAPITALS, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)]


def retired(identifier: str) -> list[str]:
    """The retired words that an identifier has, in their first form."""
    return [] if identifier in ALLOWED else [FORMS[word] for word in words(identifier) if word in FORMS]


def found(root: Path) -> Iterator[tuple[str, str, str]]:
    """(file:line, identifier, word) of each retired word in the code and in the names of its files."""
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        lines = [(1, part) for part in Path(name).with_suffix("").parts]
        lines += identifiers(ast.parse(path.read_text(encoding="utf-8")))
        yield from ((f"{name}:{line}", each, word) for line, each in lines for word in retired(each))


def test_no_retired_word_comes_back() -> None:
    back = [f"{where}: {name} (say: {RETIRED[word]})" for where, name, word in found(ROOT)]
    assert not back, "\n".join(["retired words:", *back])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from a.desk import b as kept_rows", [(1, "desk"), (1, "kept_rows")]),
        ("class TheDoor:\n    def seen(self, *, joints): ...", [(1, "TheDoor"), (2, "seen"), (2, "joints")]),
        ("f(\n    x\n    .place,\n    sight=f'{HEARD}'\n)", [(3, "place"), (4, "sight"), (4, "HEARD")]),
        ("try: ...\nexcept E as moment: ...", [(2, "moment")]),
        ("def f():\n    global stretch_of", [(2, "stretch_of")]),
        ("match x:\n    case [*settled] | Y(kept=_): ...", [(2, "settled")]),
        ("unseen = replace(placed, joined); _add_in_place(); 'kept'  # seen", []),
    ],
)
def test_they_are_found_wherever_a_name_can_stand(code: str, expected: list[tuple[int, str]]) -> None:
    assert sorted(each for each in identifiers(ast.parse(code)) if retired(each[1])) == sorted(expected)


def test_what_is_allowed_is_there() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    assert all(any(name in text for text in texts) for name in ALLOWED)


if __name__ == "__main__":
    counts = Counter(word for _, _, word in found(Path(sys.argv[1]) if sys.argv[1:] else ROOT))
    for each, number in (*counts.most_common(), ("all", counts.total())):
        print(f"{number:6,}  {each}")  # noqa: T201
