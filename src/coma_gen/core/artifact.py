"""Artifacts: folders with a manifest that verifies their content and records their inputs.

The manifest contains the digest of every file, the digests of the input artifacts, the settings, and a digest
of all this. Opening an artifact reports every changed, missing or surplus file. Mismatched artifacts, such as
weights and a tokenizer that they were not trained with, are detected by their digests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import read_json, sha256_bytes, sha256_file, write_atomic

MANIFEST = "manifest.json"
FORMAT = 2


@dataclass(frozen=True)
class Manifest:
    """Content and inputs of an artifact.

    Attributes:
        kind: Kind of artifact ("corpus", "tokenizer", "model", ...).
        made_from: Name -> digest of each input artifact or file.
        settings: Settings that it was made with, as plain data.
        files: Path relative to the folder (posix) -> SHA-256.
    """

    kind: str
    made_from: Mapping[str, str]
    settings: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest's content, and so of the whole artifact."""
        return sha256_bytes(_canonical(self._content()))

    def to_bytes(self) -> bytes:
        """Serializes the manifest with its digest as canonical JSON."""
        return _canonical({"digest": self.digest, **self._content()})

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.kind,
            "made_from": dict(self.made_from),
            "settings": dict(self.settings),
            "files": dict(self.files),
        }


def _canonical(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8")


def _list_files(folder: Path) -> list[str]:
    """Lists the files below `folder` except its manifest, as sorted posix paths."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in found)
    return sorted(name for name in names if name != MANIFEST)


def write_manifest(
    folder: Path, *, kind: str, made_from: Mapping[str, str], settings: Mapping[str, Any]
) -> Manifest:
    """Writes and returns the manifest of a complete folder."""
    files = {name: sha256_file(folder / name) for name in _list_files(folder)}
    plain = json.loads(json.dumps(dict(settings)))
    manifest = Manifest(kind=kind, made_from=dict(made_from), settings=plain, files=files)
    write_atomic(folder / MANIFEST, manifest.to_bytes())
    return manifest


def read_manifest(folder: Path, *, kind: str) -> Manifest:
    """Reads a manifest without verifying the files of the artifact.

    Raises:
        UserError: If it is missing, has another format or kind, or was changed.
    """
    path = folder / MANIFEST
    if not path.exists():
        rule = f"must be a folder of kind '{kind}' with a {MANIFEST}"
        raise UserError(Fault(str(folder), rule, "none", _rebuild(kind)))
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        rule = f"must be a manifest of format {FORMAT}"
        raise UserError(Fault(str(path), rule, "something else", _rebuild(kind)))
    if content.get("kind") != kind:
        raise UserError(Fault(str(folder), f"must hold a {kind}", f"a {content.get('kind')}"))
    try:
        parts = {name: dict(content[name]) for name in ("made_from", "settings", "files")}
        manifest = Manifest(kind=kind, **parts)
        digests = [*manifest.files.values(), *manifest.made_from.values()]
        is_intact = manifest.to_bytes() == path.read_bytes() and all(isinstance(d, str) for d in digests)
    except (KeyError, TypeError, ValueError):
        is_intact = False
    if not is_intact:
        raise UserError(Fault(str(path), "must be as it was written", "other content", _rebuild(kind)))
    return manifest


def verify_artifact(folder: Path, *, kind: str) -> Manifest:
    """Reads an artifact's manifest and verifies every file.

    Raises:
        UserError: With one fault for each missing, surplus or changed file.
    """
    manifest = read_manifest(folder, kind=kind)
    present = set(_list_files(folder))
    faults = [
        fault
        for name in sorted(present | set(manifest.files))
        if (fault := _check_file(folder, name, manifest, is_there=name in present))
    ]
    if faults:
        raise UserError(*faults)
    return manifest


def _check_file(folder: Path, name: str, manifest: Manifest, *, is_there: bool) -> Fault | None:
    """Returns the fault of one file, if any; never opens a file outside of the folder."""
    path, rebuild = folder / name, _rebuild(manifest.kind)
    if name not in manifest.files:
        return Fault(str(path), f"is not named in {MANIFEST}", "a surplus file", "remove it")
    if not is_there:
        return Fault(str(path), f"is named in {MANIFEST} and must exist", "no such file", rebuild)
    rule = f"must hold what {MANIFEST} says (SHA-256 {manifest.files[name][:12]}...)"
    try:
        is_file = path.is_file()  # reading a pipe would block
        if is_file and sha256_file(path) == manifest.files[name]:
            return None
        got = "other content" if is_file else "something else than a file"
    except OSError as error:
        got = error.strerror or str(error)
    return Fault(str(path), rule, got, rebuild)


def _rebuild(kind: str) -> str:
    return f"delete the {kind}'s folder and run `dvc repro`; if it comes back so, ask `coma-gen doctor`"
