"""Checkpoints: the complete state of a run, for bitwise identical resuming.

    checkpoints/step-00000400/weights.safetensors      model
                              best.safetensors         model at its best validation loss, if validated yet
                              optimizer.safetensors    <parameter name>/<field>
                              progress.json            counters and sums, floats exact
                              curve.csv                training curve up to this step
                              manifest.json            SHA-256 of each file, key of the run

Checkpoints hold tensors and plain data but no pickle, so loading one executes no code. A folder is built
under a temporary name, synced and renamed, so a checkpoint is complete or absent. Its digests are verified
before use; a damaged checkpoint is skipped with a warning in favor of the previous one.
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
"""Number of checkpoints to keep; older ones are removed."""
CHECKPOINTS = "checkpoints"
KIND = "checkpoint"
Tensors = Mapping[str, Tensor]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after a step.

    Attributes:
        step: Number of optimizer steps done.
        weights: Parameter or buffer name -> value.
        best: Weights at the best validation loss; empty before the first validation.
        optimizer: Parameter name/field -> value.
        progress: Counters and sums as plain data.
        curve: Content of curve.csv.
    """

    step: int
    weights: Tensors
    best: Tensors
    optimizer: Tensors
    progress: Mapping[str, Any]
    curve: str


def save_checkpoint(resume: Path, checkpoint: Checkpoint, *, key: str) -> Path:
    """Writes a checkpoint to the resume folder, then removes all but the last `MAX_CHECKPOINTS`.

    Args:
        resume: Resume folder of the run.
        checkpoint: Checkpoint to write.
        key: Digest of everything that the run depends on, which `latest_checkpoint` compares.

    Raises:
        OSError: If the disk is full or read-only; earlier checkpoints are not touched.
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
    """Returns the newest intact checkpoint, on the CPU; None if there are no checkpoints.

    Damaged newer ones are reported in a warning and removed.

    Raises:
        UserError: If all checkpoints are damaged (none is removed), or if the newest intact one belongs to
            another run.
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
            logger.warning("%s is damaged, removed; resuming from %s. %s", bad.name, folder.name, reason)
            _remove(bad)
        return checkpoint
    if damaged:
        rule = "must hold at least one checkpoint that is whole"
        remedy = "delete the folder to train from the start"
        summary = Fault(str(resume), rule, f"{len(damaged)} damaged", remedy)
        raise UserError(summary, *(fault for _, reason in damaged for fault in reason.faults))
    return None


def copy_to_cpu(tensors: Tensors) -> dict[str, Tensor]:
    """Copies tensors to the CPU; copies from a GPU are asynchronous, with one synchronization at the end."""
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
    """Removes partial files of a killed training process. The caller must hold the folder's lock."""
    for path in (*resume.glob(".*.partial"), *(resume / CHECKPOINTS).glob(".*.partial")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _folders(resume: Path) -> list[Path]:
    return sorted(path for path in (resume / CHECKPOINTS).glob("step-*") if path.is_dir())


def _remove(folder: Path) -> None:
    """Removes a checkpoint; it is renamed first, so a partly removed one does not look like a checkpoint."""
    leftover = folder.with_name(f".{folder.name}.removed.partial")
    folder.replace(leftover)
    shutil.rmtree(leftover)


def _write_tensors(path: Path, tensors: Tensors) -> None:
    """Writes tensors and syncs the file to disk; writes no file if there are none.

    Raises:
        OSError: If the disk is full or read-only.
    """
    if not tensors:
        return
    try:
        save_file(copy_to_cpu(tensors), path)
    except SafetensorError as error:  # safetensors wraps OS errors and drops their errno
        raise OSError(errno.EIO, str(error), str(path)) from error
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read(folder: Path) -> Checkpoint:
    """Reads a checkpoint whose manifest was verified.

    Raises:
        UserError: If a file with a valid digest is not a safetensors file.
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
