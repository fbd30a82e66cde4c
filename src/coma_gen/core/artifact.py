"""Artifact: a folder with a manifest, so that what is read is what was written.

The manifest names the digest of every file, what the folder was made from (digests of other artifacts), the
settings used, and a digest of all this. A changed, missing or surplus file, the manifest included, is refused
by name when the folder is opened; a tokenizer that does not belong to some weights is found by comparing
digests, not by trusting file names.
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
    """What a folder holds and where it came from.

    Attributes:
        kind: what the folder is ("corpus", "tokenizer", "model", ...).
        made_from: name -> digest of each artifact or file it was made from.
        settings: the settings it was made with, as plain data.
        files: path relative to the folder (posix) -> SHA-256.
    """

    kind: str
    made_from: Mapping[str, str]
    settings: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of all that the manifest says, and so of everything in the folder."""
        return sha256_bytes(_canonical(self._content()))

    def to_bytes(self) -> bytes:
        """The manifest's file: canonical JSON, its own digest included."""
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


def _files_below(folder: Path) -> list[str]:
    """Every file below `folder` but its manifest, as sorted posix paths."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in found)
    return sorted(name for name in names if name != MANIFEST)


def write_manifest(
    folder: Path, *, kind: str, made_from: Mapping[str, str], settings: Mapping[str, Any]
) -> Manifest:
    """Writes the manifest of a finished folder and returns it."""
    files = {name: sha256_file(folder / name) for name in _files_below(folder)}
    plain = json.loads(json.dumps(dict(settings)))
    manifest = Manifest(kind=kind, made_from=dict(made_from), settings=plain, files=files)
    write_atomic(folder / MANIFEST, manifest.to_bytes())
    return manifest


def read_manifest(folder: Path, *, kind: str) -> Manifest:
    """Reads a manifest without looking at the files it names.

    Raises:
        UserError: when there is none, it is of another format, is not what was written, or the folder is
            something else than `kind`.
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
        is_whole = manifest.to_bytes() == path.read_bytes() and all(isinstance(each, str) for each in digests)
    except (KeyError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise UserError(Fault(str(path), "must be as it was written", "other content", _rebuild(kind)))
    return manifest


def verify_artifact(folder: Path, *, kind: str) -> Manifest:
    """Reads a folder's manifest and proves every file against it.

    Raises:
        UserError: one fault for each missing, surplus or changed file.
    """
    manifest = read_manifest(folder, kind=kind)
    present = set(_files_below(folder))
    faults = [
        fault
        for name in sorted(present | set(manifest.files))
        if (fault := _fault_of(folder, name, manifest, is_there=name in present))
    ]
    if faults:
        raise UserError(*faults)
    return manifest


def _fault_of(folder: Path, name: str, manifest: Manifest, *, is_there: bool) -> Fault | None:
    """What is wrong with one file; nothing outside of the folder is opened, whatever the manifest names."""
    path, rebuild = folder / name, _rebuild(manifest.kind)
    if name not in manifest.files:
        return Fault(str(path), f"is not named in {MANIFEST}", "a surplus file", "remove it")
    if not is_there:
        return Fault(str(path), f"is named in {MANIFEST} and must exist", "no such file", rebuild)
    rule = f"must hold what {MANIFEST} says (SHA-256 {manifest.files[name][:12]}...)"
    try:
        is_file = path.is_file()  # a pipe would never end
        if is_file and sha256_file(path) == manifest.files[name]:
            return None
        got = "other content" if is_file else "something else than a file"
    except OSError as error:
        got = error.strerror or str(error)
    return Fault(str(path), rule, got, rebuild)


def _rebuild(kind: str) -> str:
    return f"delete the {kind}'s folder and run `dvc repro`; if it comes back so, ask `coma-gen doctor`"
