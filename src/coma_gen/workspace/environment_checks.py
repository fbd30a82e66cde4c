"""Checks of the environment: Python, packages, git, DVC's locks, disk space."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from coma_gen.workspace.finding import Finding, shell_path, size_of
from coma_gen.workspace.paths import Workspace

PYTHON = (3, 11)
MIN_FREE_BYTES = 2 * 2**30
"""Enough for all of MAESTRO with shards, a small model and its checkpoints."""
LISTED = 8


def python(workspace: Workspace) -> Iterator[Finding]:
    """Checks the Python interpreter of this process and of the stages."""
    if sys.version_info < PYTHON:
        found, needed = (".".join(map(str, numbers)) for numbers in (sys.version_info[:3], PYTHON))
        yield Finding(
            "python", f"this is {found}; {needed} or newer is needed", f"make PYTHON=python{needed} demo"
        )

    own = workspace.home / ".venv"
    interpreter = own / "bin" / "python"
    again = "make .venv/.installed"
    if interpreter.exists():
        if Path(sys.prefix).resolve() != own.resolve():
            problem = f"this runs in {sys.prefix}; stages run in .venv, whatever is activated"
            yield Finding("python", problem, ".venv/bin/coma-gen doctor looks at that one", False)
    elif interpreter.is_symlink():
        yield Finding("python", ".venv leads to an interpreter that is gone", f"rm -r .venv; {again}")
    elif (first := shutil.which("python3")) is None or Path(first).parent != Path(sys.executable).parent:
        problem = f"`dvc` would run stages with {first or 'no python3'}, not in {sys.prefix} as this"
        yield Finding("python", problem, f"activate this environment before `dvc`; or {again}")


def packages(workspace: Workspace) -> Iterator[Finding]:
    """Compares installed versions with those that made the committed results."""
    path = workspace.root / "constraints.txt"
    if not path.exists():
        return
    differing = []
    for name, required in re.findall(
        r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE
    ):
        try:
            found = version(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
        if found.partition("+")[0] != required.partition("+")[0]:
            differing.append(f"{name} {found} (not {required})")
    if differing:
        rest = f" and {len(differing) - LISTED} more" if len(differing) > LISTED else ""
        problem = f"other versions than in constraints.txt: {', '.join(differing[:LISTED])}{rest}"
        install = ".venv/bin/python -m pip install -c constraints.txt -e '.[pipeline,serve]'"
        yield Finding("packages", problem, install)


def git(workspace: Workspace) -> Iterator[Finding]:
    """Checks that this is a git repository that DVC can store experiments in."""
    if _git(workspace, "rev-parse", "--git-dir") is None:
        yield Finding("git", "this is no git repository, which DVC needs", "git clone coma-gen again")
        return
    if _git(workspace, "rev-parse", "--is-shallow-repository") == "true":
        problem = "the clone is shallow: DVC silently loses experiments that are run with --temp or --queue"
        yield Finding("git", problem, "git fetch --unshallow")
    if not (os.environ.get("GIT_AUTHOR_EMAIL") or _git(workspace, "config", "user.email")):
        problem = "git knows no name for you, and `dvc exp run` keeps experiments as commits"
        yield Finding("git", problem, "git config user.name NAME; git config user.email ADDRESS")
    folder = workspace.home / (_git(workspace, "rev-parse", "--git-common-dir") or ".git")
    for lock in [*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")]:
        problem = f"{lock.name} is left over from a git command that was ended, and blocks the next one"
        yield Finding(
            "git", problem, f"when no git command is running: rm {shell_path(lock, workspace.home)}"
        )


def dvc_locks(workspace: Workspace) -> Iterator[Finding]:
    """Finds locks left by an interrupted `dvc`, which block the next one."""
    path = workspace.home / ".dvc" / "tmp" / "rwlock"
    try:
        lock = json.loads(path.read_bytes() or b"?")
        owners = dict(owner for entry in lock.values() for owner in _owners(entry))
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        problem = "DVC's rwlock is empty or damaged, as after a crash or a full disk, and stops every `dvc`"
        yield Finding("dvc", problem, f"rm {shell_path(path, workspace.home)}")
        return
    for pid, command in owners.items():
        if _is_alive(pid):
            yield Finding("dvc", f"process {pid} ({command}) holds files", "wait for it", is_wrong=False)


def disk(workspace: Workspace) -> Iterator[Finding]:
    """Checks free disk space and write permission."""
    free = shutil.disk_usage(workspace.home).free
    if free < MIN_FREE_BYTES:
        problem = f"only {size_of(free)} are free; {size_of(MIN_FREE_BYTES)} should be"
        yield Finding(
            "disk", problem, "make room; `dvc gc --workspace` removes what no longer belongs to anything"
        )
    if not os.access(workspace.home, os.W_OK):
        yield Finding("disk", f"{workspace.home} cannot be written to", "change its owner or its permissions")


def _owners(entry: dict[str, Any]) -> list[tuple[int, str]]:
    """Lists (pid, command) of the processes that read or write one path."""
    owners = [*([entry["write"]] if entry.get("write") else []), *entry.get("read", [])]
    return [(int(owner["pid"]), str(owner["cmd"])) for owner in owners]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _git(workspace: Workspace, *arguments: str) -> str | None:
    """Runs git and returns its output; None if it fails or is not installed."""
    command = ["git", "-C", str(workspace.home), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
