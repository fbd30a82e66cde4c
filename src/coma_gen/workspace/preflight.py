"""Checks before a run: output folders are writable, and folders named in params.yaml exist."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from coma_gen.config.rules import check_teacher
from coma_gen.config.schema import Params
from coma_gen.core.artifact import read_manifest
from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.paths import Workspace


def check_writable(workspace: Workspace) -> None:
    """Checks that the output folders are writable, by creating a temporary file.

    Raises:
        UserError: With one fault for each folder that is not writable.
    """
    faults = []
    for folder in dict.fromkeys((workspace.root / "data", workspace.root / "metrics", workspace.home)):
        try:
            folder.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=folder, prefix=".room."):
                pass
        except OSError as error:
            rule, got = "must be a folder that can be written to", error.strerror or str(error)
            faults.append(Fault(str(folder), rule, got, "change its owner or permissions, or make room"))
    if faults:
        raise UserError(*faults)


def check_paths(params: Params, workspace: Workspace) -> None:
    """Checks that the folders named in the settings exist.

    Raises:
        UserError: With one fault for each setting that names no usable folder.
    """
    faults = []
    if params.download.corpus == "folder":
        music = workspace.own_folder(params.download.path)
        if not music.is_dir():
            remedy = (
                "name another one: dvc exp run -S download.path=... "
                "(by its absolute path with --temp and --queue, which work in a copy of what git knows)"
            )
            faults.append(Fault("download.path", "must be a folder with MIDI files", str(music), remedy))
    for key, named in (("train.init_from", params.train.init_from), ("train.teacher", params.train.teacher)):
        if named is None:
            continue
        try:
            found = read_manifest(workspace.model_folder(named), kind="model")
        except UserError as error:
            faults += [Fault(key, f"{fault.where} {fault.rule}", fault.got) for fault in error.faults]
            continue
        if key == "train.teacher":
            faults += check_teacher(found.digest, found.settings, params.model, params.train)
    if faults:
        raise UserError(*faults)


def explain_restore(root: Path) -> str:
    """Explains how to restore the outputs that DVC deleted before this stage; empty if there are none.

    The stage `check` has no outputs worth restoring.
    """
    if os.environ.get("DVC_STAGE", "check") == "check" or not (root / "dvc.lock").exists():
        return ""
    return (
        "Before it runs a stage, DVC deletes the stage's previous outputs. To restore them, correct the "
        "settings (`git restore params.yaml`, or edit it), then run `dvc checkout` and `git restore metrics`."
    )
