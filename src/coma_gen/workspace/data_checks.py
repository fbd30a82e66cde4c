"""Checks of the data in a checkout: settings, archives, stage outputs, cache, checkpoints, leftovers."""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from coma_gen.config.load import load_params
from coma_gen.core.artifact import Manifest, verify_artifact
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import sha256_file
from coma_gen.corpus.maestro import ARCHIVE, ARCHIVE_VARIABLE
from coma_gen.corpus.maestro_mini import SDIST, SDIST_SHA256
from coma_gen.workspace.finding import Finding, shell_path, size_of
from coma_gen.workspace.fingerprint import sharding_digest, training_digest
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.verify import has_committed_params

KINDS = ("corpus", "split", "tokenizer", "shards", "model", "evaluation", "samples", "report")
"""Kinds of stage outputs, in pipeline order."""
PARTS_DIGITS = 16
"""Number of digest characters in the name of a folder of shard parts (see cli/shard.py)."""

LISTED = 8
"""Maximum number of damaged files listed per folder; further ones are counted."""

ABANDONED_AFTER = 7 * 24 * 3600.0
"""Seconds without a change after which a resume folder counts as abandoned."""


def settings(workspace: Workspace) -> Iterator[Finding]:
    """Checks params.yaml."""
    try:
        load_params(workspace.params)
    except UserError as error:
        for fault in error.faults:
            yield Finding("params", str(fault), "edit params.yaml")
        return
    try:
        is_committed = has_committed_params(workspace.root)
    except UserError:
        return  # there is no committed file to compare with
    if not is_committed:
        problem = "params.yaml is not the committed one; `make demo` is of that one"
        yield Finding("params", problem, "git diff params.yaml; git restore params.yaml returns to it", False)


def archives(workspace: Workspace) -> Iterator[Finding]:
    """Checks the inputs and cached files of the download stage."""
    try:
        download = load_params(workspace.params).download
    except UserError:
        return  # `settings` reports the reason
    named = os.environ.get(ARCHIVE_VARIABLE)
    if named and not Path(named).expanduser().exists():
        yield Finding(
            "archive", f"{ARCHIVE_VARIABLE} names {named}, which is not there", f"unset {ARCHIVE_VARIABLE}"
        )
    own = workspace.own_folder(download.path)
    if download.corpus == "folder" and not own.is_dir():
        yield Finding("archive", f"download.path names {own}, which is not a folder", "change download.path")
    cached = {"maestro": (ARCHIVE, download.maestro_sha256), "maestro-mini": (SDIST, SDIST_SHA256)}
    for corpus, (name, digest) in cached.items():
        path = workspace.downloads / name
        if path.exists() and sha256_file(path) != digest:
            shown = shell_path(path, workspace.home)
            yield Finding("archive", f"{shown} is not what was downloaded", f"rm {shown}")
        elif corpus == download.corpus and not path.exists() and not (named and corpus == "maestro"):
            yield Finding(
                "archive", f"{name} is not here yet; `dvc repro` fetches it", "be online then", False
            )


def artifacts(workspace: Workspace) -> Iterator[Finding]:
    """Checks that stage outputs are intact and were made from each other."""
    found: dict[str, Manifest] = {}
    absent = []
    for kind in KINDS:
        folder = workspace.data(kind)
        if not folder.exists():
            absent.append(kind)
            continue
        try:
            found[kind] = verify_artifact(folder, kind=kind)
        except UserError as error:
            todo = f"rm -r {shell_path(folder, workspace.home)}; dvc repro"
            for fault in error.faults[:LISTED]:
                yield Finding("data", str(Fault(fault.where, fault.rule, fault.got)), todo)
            if (rest := len(error.faults) - LISTED) > 0:
                yield Finding("data", f"data/{kind}: {rest} more files like these", todo)
    if absent:
        yield Finding("data", f"no {', '.join(absent)} here", "dvc repro", False)
    for kind, manifest in found.items():
        for source, digest in manifest.made_from.items():
            if source in found and digest != found[source].digest:
                yield Finding("data", f"data/{kind} was made from another {source}", "dvc repro", False)


def cache(workspace: Workspace) -> Iterator[Finding]:
    """Checks the objects of DVC's cache against their names, which are MD5s; DVC restores them unverified."""
    objects = sorted((_cache_folder(workspace.home) / "files" / "md5").glob("??/*"))
    for path in tqdm(objects, desc="cache", unit="file", disable=None):
        expected = path.parent.name + path.name.removesuffix(".dir")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != expected:
            shown = shell_path(path, workspace.home)
            problem = f"{shown} is damaged, and DVC restores it as it is"
            yield Finding("cache", problem, f"rm -f {shown}; rm -r the damaged folders of data/; dvc repro")


def _cache_folder(home: Path) -> Path:
    """Reads the cache folder from DVC's configuration."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    with suppress(configparser.Error, UnicodeDecodeError):
        parser.read([home / ".dvc" / "config", home / ".dvc" / "config.local"], encoding="utf-8")
    return home / ".dvc" / parser.get("cache", "dir", fallback="cache")


def checkpoints(workspace: Workspace) -> Iterator[Finding]:
    """Reports abandoned resume folders."""
    for folder in abandoned(workspace):
        days = (time.time() - _last_change(folder)) / 86_400
        shown = f"{shell_path(folder, workspace.home)} ({size_of(_bytes(folder))}, {days:.0f} days old)"
        problem = f"{shown} is of other params, data or code than the present ones"
        yield Finding("resume", problem, "coma-gen doctor --sweep", False)


def leftovers(workspace: Workspace) -> Iterator[Finding]:
    """Reports incomplete files of killed processes."""
    folders = {workspace.root / "data", workspace.root / "metrics", workspace.downloads, workspace.root}
    for path in sorted(left for folder in folders for left in folder.glob(".*.partial")):
        shown = shell_path(path, workspace.home)
        problem = f"{shown} ({size_of(_bytes(path))}) was begun and never finished"
        yield Finding("leftover", problem, f"when no stage is running: rm -r {shown}", False)


def abandoned(workspace: Workspace) -> list[Path]:
    """Lists resume folders of other params, data or code than the current ones, that no process has locked,
    and that have not changed for `ABANDONED_AFTER`; empty if the current digests cannot be computed.
    """
    try:
        present = (training_digest(workspace.root), sharding_digest(workspace.root)[:PARTS_DIGITS])
    except (UserError, OSError, LookupError, TypeError, ImportError):
        return []  # stages have not run, or a library is missing
    return [
        folder
        for folder in sorted(workspace.resume.glob("*"))
        if folder.is_dir()
        and not folder.name.endswith(present)
        and time.time() - _last_change(folder) > ABANDONED_AFTER
        and not _is_locked(folder)
    ]


def sweep(workspace: Workspace) -> list[tuple[Path, int]]:
    """Deletes the abandoned resume folders; returns them with their sizes in bytes."""
    removed = [(folder, _bytes(folder)) for folder in abandoned(workspace)]
    for folder, _ in removed:
        shutil.rmtree(folder)
    return removed


def _is_locked(folder: Path) -> bool:
    for path in folder.glob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return True
    return False


def _last_change(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
