"""Checks for optional dependencies, the extras of pyproject.toml."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

from coma_gen.core.errors import Fault, UserError


def require_extra(extra: str, *, where: str) -> None:
    """Checks that the packages of an extra are installed.

    A checkout that is not installed has no package metadata and is not checked.

    Args:
        extra: Name of the extra in pyproject.toml, such as pipeline.
        where: Command that needs it, for the error.

    Raises:
        UserError: If a package is missing.
    """
    try:
        lines = requires("coma-gen") or []
    except PackageNotFoundError:
        return
    pattern = re.compile(rf"([\w.-]+).*;.*\bextra == [\"']{re.escape(extra)}[\"']")
    names = [match[1] for match in map(pattern.match, lines) if match]
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        rule = f"must find the packages of coma-gen's extra `{extra}`"
        remedy = f"run pip install 'coma-gen[{extra}]'; in a checkout: make .venv/.installed"
        raise UserError(Fault(where, rule, f"no {', '.join(missing)}", remedy))


def _is_installed(package: str) -> bool:
    try:
        return version(package) is not None
    except PackageNotFoundError:
        return False
