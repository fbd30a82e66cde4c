"""Artefact: a folder with a manifest, so that what is read is what was written.

The manifest names the digest of every file, what the folder was made from (digests of other artefacts) and
the settings used. A changed, missing or surplus file is refused by name when the folder is opened; a
tokenizer that does not belong to some weights is found by comparing digests, not by trusting file names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.errors import Fault, UserError
from coma_gen.files import read_json, sha256_bytes, sha256_file, write_atomic

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a folder holds and where it came from.

    Attributes:
        kind: what the folder is ("corpus", "tokenizer", "model", ...).
        made_from: name -> digest of each artefact or file it was made from.
        settings: the settings it was made with, as plain data.
        files: path relative to the folder (posix) -> SHA-256.
    """

    kind: str
    made_from: Mapping[str, str]
    settings: Mapping[str, Any]
    files: Mapping[str, str]

    def to_json(self) -> str:
        """The manifest as canonical JSON: the bytes its digest is taken of."""
        content = {
            "format": FORMAT,
            "kind": self.kind,
            "made_from": dict(self.made_from),
            "settings": dict(self.settings),
            "files": dict(self.files),
        }
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and so of everything in the folder."""
        return sha256_bytes(self.to_json().encode("utf-8"))


def _content(folder: Path) -> list[str]:
    """Every file below `folder` but its manifest, as sorted posix paths."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in files if name != MANIFEST)


def seal(folder: Path, *, kind: str, made_from: Mapping[str, str], settings: Mapping[str, Any]) -> Manifest:
    """Writes the manifest of a finished folder and returns it."""
    files = {name: sha256_file(folder / name) for name in _content(folder)}
    plain = json.loads(json.dumps(dict(settings)))
    manifest = Manifest(kind=kind, made_from=dict(made_from), settings=plain, files=files)
    write_atomic(folder / MANIFEST, manifest.to_json())
    return manifest


def read_manifest(folder: Path, *, kind: str) -> Manifest:
    """Reads a manifest without looking at the files it names.

    Raises:
        UserError: when there is none, it is of another format, or the folder is something else than `kind`.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(
            Fault(str(folder), f"must be a folder of kind '{kind}' with a {MANIFEST}", "none", _rebuild(kind))
        )
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            Fault(str(path), f"must be a manifest of format {FORMAT}", "something else", _rebuild(kind))
        )
    if content.get("kind") != kind:
        raise UserError(Fault(str(folder), f"must hold a {kind}", f"a {content.get('kind')}"))
    try:
        parts = {name: dict(content[name]) for name in ("made_from", "settings", "files")}
    except (KeyError, TypeError, ValueError):
        raise UserError(
            Fault(str(path), "must list made_from, settings and files", "less", _rebuild(kind))
        ) from None
    return Manifest(kind=kind, **parts)


def open_artefact(folder: Path, *, kind: str) -> Manifest:
    """Reads a folder's manifest and proves every file against it.

    Raises:
        UserError: one fault for each missing, surplus or changed file.
    """
    manifest = read_manifest(folder, kind=kind)
    present, faults = set(_content(folder)), []
    for name in sorted(present | set(manifest.files)):
        if name not in present:
            faults.append(
                Fault(
                    str(folder / name),
                    f"is named in {MANIFEST} and must exist",
                    "no such file",
                    _rebuild(kind),
                )
            )
        elif name not in manifest.files:
            faults.append(
                Fault(str(folder / name), f"is not named in {MANIFEST}", "a surplus file", "remove it")
            )
        elif sha256_file(folder / name) != manifest.files[name]:
            rule = f"must hold what {MANIFEST} says (SHA-256 {manifest.files[name][:12]}...)"
            faults.append(Fault(str(folder / name), rule, "other content", _rebuild(kind)))
    if faults:
        raise UserError(*faults)
    return manifest


def _rebuild(kind: str) -> str:
    return f"delete the folder and run `dvc repro` to build the {kind} again"
