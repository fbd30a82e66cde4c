"""An offline audit of dependencies: all direct and transitive packages are pinned, compatible, from a package
index, and state a license.

Known vulnerabilities and file hashes are not checked here; see SECURITY.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

Tally = Callable[[str, str, int], None]
ROOT = Path(__file__).resolve().parents[2]


def same(name: str) -> str:
    """A package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def asked_for() -> list[str]:
    """What the project itself asks for, all extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(line for extra in extras for line in extra)]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {same(name): version for name, version in pairs}


def found(requirement: Requirement) -> Distribution | None:
    """The installed package; None for one that is not, as where an extra was left out."""
    try:
        return distribution(requirement.name)
    except PackageNotFoundError:
        return None


def closure(lines: list[str]) -> Iterator[Requirement]:
    """Each requirement of these lines, of what they bring in, and so on, that holds on this machine."""
    todo, visited = [Requirement(line) for line in lines], set()
    while todo:
        requirement = todo.pop()
        extras = {"", *requirement.extras}
        if (requirement.name, *sorted(extras), str(requirement.specifier)) in visited:
            continue
        visited.add((requirement.name, *sorted(extras), str(requirement.specifier)))
        yield requirement
        package = found(requirement)
        for line in (package.requires if package is not None else None) or ():
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(inner)


@pytest.fixture(scope="module")
def needed() -> list[Requirement]:
    return list(closure(asked_for()))


def test_each_is_pinned(needed: list[Requirement], tally: Tally) -> None:
    named = {same(requirement.name) for requirement in needed}
    assert len(named) > 100 and sorted(named - set(pins())) == []
    assert all(re.fullmatch(r"[0-9][0-9A-Za-z.+!]*", version) for version in pins().values())
    tally("a package that changes under us", "it, and what it needs, is pinned to one version", len(named))


def test_they_fit_together(needed: list[Requirement], tally: Tally) -> None:
    pairs = [(each, package) for each in needed if (package := found(each)) is not None]
    misfits = [
        f"{each} is asked for, {package.version} is here"
        for each, package in pairs
        if not each.specifier.contains(package.version, prereleases=True)
    ]
    unpinned = [str(each) for each in needed if not fits_pin(each)]
    assert misfits == [] and unpinned == []
    tally("packages that do not fit together", "none is installed or pinned", len(pairs))


def fits_pin(requirement: Requirement) -> bool:
    return requirement.specifier.contains(pins()[same(requirement.name)], prereleases=True)


def test_they_came_from_an_index(needed: list[Requirement], tally: Tally) -> None:
    assert [str(each) for each in needed if each.url] == []
    packages = {same(each.name): package for each in needed if (package := found(each)) is not None}
    elsewhere = [name for name, package in packages.items() if package.read_text("direct_url.json")]
    assert elsewhere == []
    tally("a package from somebody's address or folder", "none is asked for or installed", len(packages))


def test_each_states_its_license(needed: list[Requirement], tally: Tally) -> None:
    packages = {same(each.name): package for each in needed if (package := found(each)) is not None}
    assert [name for name, package in packages.items() if not has_license(package)] == []
    tally("a package that nobody may use", "each states its license", len(packages))


def has_license(package: Distribution) -> bool:
    """Whether a package says what it may be used for, in a field or in a file."""
    data = package.metadata
    classified = any(line.startswith("License") for line in data.get_all("Classifier") or ())
    filed = any(re.match(r"(?i)(licen[cs]e|copying)", path.name) for path in package.files or ())
    return bool(data.get("License-Expression") or data.get("License") or classified or filed)
