"""Which of this repository's files a stage script imports, by itself or through others."""

from __future__ import annotations

from modulefinder import ModuleFinder
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_A_DEPENDENCY = ("src/coma_gen/config/",)
"""Settings can be refused here but never changed: what a stage computes follows from params.yaml."""


def local_imports(script: Path) -> list[str]:
    """Files below stages/ and src/ that running `script` may import, the script included, as sorted posix
    paths.

    Imports inside functions count; what is imported by a name made at run time does not.
    """
    finder = ModuleFinder(path=[str(ROOT / "stages"), str(ROOT / "src")])
    finder.run_script(str(script))
    files = {Path(module.__file__).resolve() for module in finder.modules.values() if module.__file__}
    names = {file.relative_to(ROOT).as_posix() for file in files if file.is_relative_to(ROOT)}
    return sorted(name for name in names if not name.startswith(NOT_A_DEPENDENCY))


if __name__ == "__main__":
    for stage in sorted((ROOT / "stages").glob("[a-z]*.py")):
        print(f"{stage.stem}:", *local_imports(stage), sep="\n      - ")  # noqa: T201
