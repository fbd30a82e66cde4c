"""The docs site: every page is included, it builds without warnings and loads nothing from the network."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from subprocess_utils import environment

import coma_gen
from coma_gen.config.yaml_reader import read_yaml

ROOT = Path(__file__).resolve().parents[1]
SITE = read_yaml(ROOT / "mkdocs.yml")


def pages(nav: list[dict[str, object]]) -> list[str]:
    """All files that the navigation names."""
    values = [value for entry in nav for value in entry.values()]
    return [page for each in values for page in (pages(each) if isinstance(each, list) else [str(each)])]


def test_the_navigation_has_every_page() -> None:
    assert sorted(pages(SITE["nav"])) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: (coma_gen\.\S+)$", text, re.MULTILINE)}
    assert shown == set(coma_gen.__all__) - {"__version__"}


def test_the_architecture_names_what_there_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    library = ROOT / "src" / "coma_gen"
    packages = {path.parent.name for path in library.glob("*/__init__.py")}
    assert packages <= set(re.findall(r"`(\w+)`", text))
    files = re.findall(r"`([\w/]+\.py)`", text)
    table = dict(re.findall(r"^\| `(\w+)`(?:, `\w+`)? \|.*\| `([\w/]+\.py)` \|$", text, re.MULTILINE))
    assert len(files) > 25 and len(table) > 14
    for name in files:
        assert (library / name).exists() or (ROOT / name).exists() or name in table.values(), name
    for package, name in table.items():
        assert (library / package / name).exists() or (library / name).exists(), name


def test_the_architecture_says_where_names_are_defined() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+\? \| `([\w/]+\.py)`, `(\w+)`", text, re.MULTILINE)
    assert len(rows) >= 20
    for file, name in rows:
        path = ROOT / file if file.startswith("tests/") else ROOT / "src" / "coma_gen" / file
        code = path.read_text(encoding="utf-8")
        assert re.search(rf"^(def |class )?{name}\b", code, re.MULTILINE), f"{file}: {name}"


def test_all_pictures_are_shown() -> None:
    pages = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    made = re.findall(r'"((?:dvc|mlflow)-[a-z-]+)"', (ROOT / ".ci" / "make_pictures.py").read_text())
    pictures = ROOT / "docs" / "pictures"
    assert len(made) == 7 and all((pictures / f"{name}.png").exists() for name in made)
    assert [path.name for path in pictures.glob("*.*") if f"pictures/{path.name})" not in text] == []


@pytest.mark.slow
def test_pictures_without_a_browser_say_so() -> None:
    env = {**environment(), "COMA_BROWSER": "nothing-of-the-kind"}
    command = [sys.executable, ".ci/make_pictures.py"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "make pictures: COMA_BROWSER names nothing-of-the-kind, which is no program\n"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra `docs` is not installed")
def test_it_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    env = {**environment(), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    built = list(tmp_path.glob("*.html"))
    assert len(built) == len(pages(SITE["nav"])) + 1
    for page in built:
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?https?://", page.read_text())
        assert loaded == [], page.name
    assert 'id="coma_gen.api.MusicModel.generate"' in (tmp_path / "api.html").read_text()
