"""Lists the code that each stage script imports, for dvc.yaml.

`python tests/local_imports.py` prints the list of each stage; `--write` writes them into dvc.yaml.
"""

from __future__ import annotations

import re
import sys
import textwrap
from itertools import groupby
from modulefinder import ModuleFinder
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "src" / "coma_gen"
SETTINGS = LIBRARY / "config"
"""Not a dependency: settings can be refused there but never changed, and what a stage computes follows from
params.yaml.
"""
DEPS = re.compile(r"^    deps: \[(.*?)\]$", re.DOTALL | re.MULTILINE)
CODE = ("stages/", "src/")
WIDTH = 118


def local_imports(script: Path) -> list[Path]:
    """Files of this repository that running `script` may import, the script included, sorted.

    Imports inside functions count; what is imported by a name made at run time does not. Left out are
    `__init__.py`, which hold a docstring (and, at the top, names that are imported on first use), and
    settings.
    """
    finder = ModuleFinder(path=[str(ROOT / "stages"), str(ROOT / "src")])
    finder.run_script(str(script))
    files = {Path(module.__file__).resolve() for module in finder.modules.values() if module.__file__}
    return sorted(
        file
        for file in files
        if file.is_relative_to(ROOT) and file.name != "__init__.py" and file.parent != SETTINGS
    )


def code_dependencies(script: Path) -> list[str]:
    """Files and packages, as posix paths: a package whole where `script` imports most of its modules, which
    are listed one by one otherwise, so that an edit of the others runs nothing again.
    """
    names = []
    for folder, members in groupby(local_imports(script), key=lambda file: file.parent):
        files = list(members)
        modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        is_whole = folder.parent == LIBRARY and 2 * len(files) > len(modules)
        names += [folder] if is_whole else files
    return sorted(
        (name.relative_to(ROOT).as_posix() for name in names),
        key=lambda name: (not name.startswith("stages/"), name),
    )


def write_dependencies(text: str) -> str:
    """The text of dvc.yaml with each stage's code listed anew; what else a stage depends on stays."""
    head, *stages = re.split(r"^  (?=\w+:$)", text, flags=re.MULTILINE)
    return "  ".join([head, *(_write_stage(stage) for stage in stages)])


def _write_stage(text: str) -> str:
    script = ROOT / "stages" / f"{text.partition(':')[0]}.py"
    match = DEPS.search(text)
    if match is None:
        return text
    listed = filter(None, re.split(r",\s*", match[1].strip()))
    data = [name for name in listed if not name.startswith(CODE)]
    lines = [_wrap(code_dependencies(script)), *([_wrap(data)] if data else [])]
    return text[: match.start()] + "    deps: [\n" + ",\n".join(lines) + "]" + text[match.end() :]


def _wrap(names: list[str]) -> str:
    return textwrap.fill(
        ", ".join(names),
        WIDTH,
        initial_indent=" " * 6,
        subsequent_indent=" " * 6,
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    pipeline = ROOT / "dvc.yaml"
    if sys.argv[1:] == ["--write"]:
        pipeline.write_text(write_dependencies(pipeline.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        for stage in sorted((ROOT / "stages").glob("[a-z]*.py")):
            print(f"{stage.stem}:", *code_dependencies(stage), sep="\n      - ")  # noqa: T201
