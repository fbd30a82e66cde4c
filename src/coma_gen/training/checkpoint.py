"""Checkpoints: everything a run needs to go on as if it had never stopped.

    checkpoints/step-00000400/weights.safetensors      the model
                              best.safetensors         the model at its best validation, once there was one
                              optimizer.safetensors    <parameter name>/<field>
                              progress.json            counters and sums, floats exact
                              curve.csv                the curve up to here
                              manifest.json            SHA-256 of each, the run's key

Tensors and plain data only, no pickle: opening one runs nobody's code. A folder is built beside its final
name, every file synced, then renamed, so a checkpoint is whole or absent. It is proven by its digests
before it is used; one that is not what was written is passed over, with a warning, for the one before.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from coma_gen.core.artifact import verify_artifact, write_manifest
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import atomic_dir, read_json, write_atomic

MAX_CHECKPOINTS = 3
"""Checkpoints that stay; older ones are removed."""
CHECKPOINTS = "checkpoints"
KIND = "checkpoint"
Tensors = Mapping[str, Tensor]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A run after some step.

    Attributes:
        step: optimizer steps done.
        weights: parameter or buffer name -> value.
        best: the same at the best validation; empty before the first.
        optimizer: parameter name/field -> value.
        progress: counters and sums as plain data.
        curve: content of the curve's file.
    """

    step: int
    weights: Tensors
    best: Tensors
    optimizer: Tensors
    progress: Mapping[str, Any]
    curve: str


def save_checkpoint(resume: Path, checkpoint: Checkpoint, *, key: str) -> Path:
    """Writes a checkpoint below the resume folder, then removes all but the last `MAX_CHECKPOINTS`.

    Args:
        resume: the run's resume folder.
        checkpoint: what to write.
        key: digest of everything that the run depends on; `latest_checkpoint` compares it.

    Raises:
        OSError: when the disk is full or read-only; the former checkpoints are untouched.
    """
    target = resume / CHECKPOINTS / f"step-{checkpoint.step:08d}"
    with atomic_dir(target) as folder:
        _write_tensors(folder / "weights.safetensors", checkpoint.weights)
        _write_tensors(folder / "best.safetensors", checkpoint.best)
        _write_tensors(folder / "optimizer.safetensors", checkpoint.optimizer)
        write_atomic(folder / "progress.json", json.dumps(dict(checkpoint.progress), allow_nan=False) + "\n")
        write_atomic(folder / "curve.csv", checkpoint.curve)
        write_manifest(folder, kind=KIND, made_from={"run": key}, settings={"step": checkpoint.step})
    for old in _folders(resume)[:-MAX_CHECKPOINTS]:
        _remove(old)
    return target


def latest_checkpoint(resume: Path, *, key: str) -> Checkpoint | None:
    """The newest checkpoint that is whole, on the CPU; None where none was ever written.

    Newer ones that are damaged are named in a warning and removed.

    Raises:
        UserError: when there are checkpoints and all are damaged (they are left as they are), or when the
            newest whole one belongs to another run.
    """
    remove_leftovers(resume)
    damaged: list[tuple[Path, UserError]] = []
    for folder in reversed(_folders(resume)):
        try:
            run = verify_artifact(folder, kind=KIND).made_from.get("run", "")
            checkpoint = _read(folder) if run == key else None
        except UserError as error:
            damaged.append((folder, error))
            continue
        if checkpoint is None:
            rule = f"must be a checkpoint of this run (key {key[:12]})"
            raise UserError(Fault(str(folder), rule, f"one of {run[:12] or 'no run'}", f"delete {resume}"))
        for bad, reason in damaged:
            logger.warning("%s is damaged, removed; going on from %s. %s", bad.name, folder.name, reason)
            _remove(bad)
        return checkpoint
    if damaged:
        rule = "must hold at least one checkpoint that is whole"
        remedy = "delete the folder to train from the start"
        summary = Fault(str(resume), rule, f"{len(damaged)} damaged", remedy)
        raise UserError(summary, *(fault for _, reason in damaged for fault in reason.faults))
    return None


def copy_to_cpu(tensors: Tensors) -> dict[str, Tensor]:
    """Copies on the CPU, which share nothing; from a GPU all in one go, waiting once, at the end."""
    copies: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.is_cuda:
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            copies[name] = pinned.copy_(tensor.detach(), non_blocking=True)
        else:
            copies[name] = tensor.detach().cpu().contiguous().clone()
    if any(tensor.is_cuda for tensor in tensors.values()):
        torch.cuda.synchronize()
    return copies


def remove_leftovers(resume: Path) -> None:
    """Removes what a killed trainer was still building. Only for whoever holds the folder's lock."""
    for path in (*resume.glob(".*.partial"), *(resume / CHECKPOINTS).glob(".*.partial")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _folders(resume: Path) -> list[Path]:
    return sorted(path for path in (resume / CHECKPOINTS).glob("step-*") if path.is_dir())


def _remove(folder: Path) -> None:
    """Removes a checkpoint; one that is half removed no longer bears its name."""
    leftover = folder.with_name(f".{folder.name}.removed.partial")
    folder.replace(leftover)
    shutil.rmtree(leftover)


def _write_tensors(path: Path, tensors: Tensors) -> None:
    """Writes tensors and syncs them to the disk; no file where there are none.

    Raises:
        OSError: when the disk is full or read-only.
    """
    if not tensors:
        return
    try:
        save_file(copy_to_cpu(tensors), path)
    except SafetensorError as error:  # tells what the disk said in words alone
        raise OSError(errno.EIO, str(error), str(path)) from error
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read(folder: Path) -> Checkpoint:
    """A checkpoint that is what its manifest says.

    Raises:
        UserError: when somebody sealed another thing as one.
    """

    def tensors(name: str) -> Tensors:
        path = folder / f"{name}.safetensors"
        try:
            return load_file(path) if path.exists() else {}
        except SafetensorError as error:
            raise UserError(Fault(str(path), "must be a safetensors file", str(error))) from None

    progress = read_json(folder / "progress.json")
    return Checkpoint(
        step=int(progress["step"]),
        weights=tensors("weights"),
        best=tensors("best"),
        optimizer=tensors("optimizer"),
        progress=progress,
        curve=(folder / "curve.csv").read_text(encoding="utf-8"),
    )
