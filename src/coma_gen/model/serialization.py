"""Saves and loads models as artifacts: weights, shape and tokenizer, verified by digest.

best.safetensors    parameters at the best validation loss
last.safetensors    parameters at the last step
config.json         {"format", "model": section of params.yaml, "vocab_size"}; empty conditions are left out
tokenizer/          copy of the model's tokenizer
manifest.json       digests of all files and of the inputs (tokenizer, shards)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from coma_gen.config.schema import ModelParams
from coma_gen.core.artifact import Manifest, verify_artifact, write_manifest
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import atomic_dir, read_json, write_atomic
from coma_gen.model.conformer import Conformer

KIND = "model"
FORMAT = 2
BEST = "best"
SUFFIX = ".safetensors"
TOKENIZER = "tokenizer"
CONFIG = "config.json"


@dataclass(frozen=True)
class LoadedModel:
    """A model read from its folder.

    Attributes:
        model: The model, in evaluation mode.
        vocab_size: V, which must equal the tokenizer's.
        manifest: Manifest of the folder; its digest identifies the weights.
    """

    model: Conformer
    vocab_size: int
    manifest: Manifest


def save_model(
    folder: Path,
    model: Conformer,
    *,
    made_from: Mapping[str, str],
    weights: Mapping[str, Mapping[str, Tensor]] | None = None,
    tokenizer: Path | None = None,
    dtype: Literal["float32", "float16"] = "float32",
) -> Manifest:
    """Writes a model's weights and shape to `folder`, which is replaced atomically.

    Args:
        folder: Folder to write.
        model: Model that gives the shape, on any device.
        made_from: Name -> digest of each input, such as the tokenizer and the shards.
        weights: Name, such as best or last -> state dict; None for the model's own state as "best".
        tokenizer: Tokenizer folder to copy into the artifact.
        dtype: Dtype of the saved weights; `load_model` always returns float32.

    Returns:
        The manifest.
    """
    rounded: torch.dtype = getattr(torch, dtype)
    shape = model.params.model_dump(mode="json")
    if not shape["conditions"]:  # models without conditions keep the file format that predates them
        del shape["conditions"]
    config = {"format": FORMAT, "model": shape, "vocab_size": model.vocab_size}
    with atomic_dir(folder) as building:
        for name, state in (weights or {BEST: model.state_dict()}).items():
            tensors = {key: tensor.detach().to("cpu", rounded).contiguous() for key, tensor in state.items()}
            write_atomic(building / f"{name}{SUFFIX}", tensors_to_bytes(tensors))
        write_atomic(building / CONFIG, json.dumps(config, indent=2) + "\n")
        if tokenizer is not None:
            shutil.copytree(tokenizer, building / TOKENIZER)
        return write_manifest(building, kind=KIND, made_from=made_from, settings=config)


def load_model(
    folder: Path,
    *,
    weights: str = BEST,
    device: torch.device | None = None,
    made_from: Mapping[str, str] | None = None,
) -> LoadedModel:
    """Reads a model that `save_model` wrote.

    Args:
        folder: Folder to read.
        weights: Name of the weights, best or last.
        device: Device of the model; None for the CPU.
        made_from: Name -> expected digest of each input; None to skip this check.

    Returns:
        The model in evaluation mode, in float32.

    Raises:
        UserError: For a changed, missing or surplus file, weights that do not match the config, or inputs
            that differ from `made_from`.
    """
    manifest = verify_artifact(folder, kind=KIND)
    faults = [
        Fault(
            str(folder),
            f"must be made from the {name} {digest[:12]}...",
            f"{manifest.made_from[name][:12]}..." if name in manifest.made_from else "none",
            "train it on this one, or use the one it was trained on",
        )
        for name, digest in (made_from or {}).items()
        if manifest.made_from.get(name) != digest
    ]
    if faults:
        raise UserError(*faults)
    params, vocab_size = _read_config(folder / CONFIG)
    path = folder / f"{weights}{SUFFIX}"
    tensors = _read_tensors(path)
    model = Conformer(params=params, vocab_size=vocab_size, seed=0)
    _refuse_misfits(path, expected=model.state_dict(), found=tensors)
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return LoadedModel(model.to(device or torch.device("cpu")).eval(), vocab_size, manifest)


def _read_config(path: Path) -> tuple[ModelParams, int]:
    """Reads the shape and the vocabulary size from a config file."""
    config = read_json(path)
    keys = {"format", "model", "vocab_size"}
    if not isinstance(config, dict) or set(config) != keys or config["format"] != FORMAT:
        raise UserError(
            Fault(str(path), f"must hold {', '.join(sorted(keys))}, of format {FORMAT}", "something else")
        )
    vocab_size = config["vocab_size"]
    if not isinstance(vocab_size, int) or isinstance(vocab_size, bool) or vocab_size < 1:
        raise UserError(
            Fault(f"{path}: vocab_size", "must be a whole number of at least 1", repr(vocab_size))
        )
    shape = config["model"]
    if isinstance(shape, dict):
        shape = {"conditions": [], **shape}
    try:
        return ModelParams.model_validate(shape), vocab_size
    except ValidationError as error:
        faults = (
            Fault(f"{path}: model.{'.'.join(map(str, fault['loc']))}", fault["msg"], repr(fault["input"]))
            for fault in error.errors()
        )
        raise UserError(*faults) from None


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a safetensors file as float32."""
    try:
        tensors = tensors_from_bytes(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise UserError(Fault(str(path), "must be a safetensors file", str(error))) from None
    return {name: tensor.float() for name, tensor in tensors.items()}


def _refuse_misfits(path: Path, *, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises UserError listing every tensor that is missing, surplus, of a wrong shape or not finite."""
    faults = []
    for name in sorted(set(expected) | set(found)):
        if name not in found:
            faults.append(Fault(f"{path}: {name}", f"must be there under this {CONFIG}", "no such tensor"))
        elif name not in expected:
            faults.append(Fault(f"{path}: {name}", f"must be named by this {CONFIG}", "a surplus tensor"))
        elif found[name].shape != expected[name].shape:
            rule = f"must have the shape {tuple(expected[name].shape)} under this {CONFIG}"
            faults.append(Fault(f"{path}: {name}", rule, str(tuple(found[name].shape))))
        elif not bool(torch.isfinite(found[name]).all()):
            faults.append(Fault(f"{path}: {name}", "must be finite", "NaN or infinity", "train again"))
    if faults:
        raise UserError(*faults)
