"""Transfers a trained model from a training machine: the best weights, in parts of a given size.

    on the training machine   PYTHONPATH=src python3 -m coma_gen.workspace.carry pack FOLDER --part-mb 15
    here                      .venv/bin/python -m coma_gen.workspace.carry unpack FOLDER

    FOLDER/trained.json      config, params, digests of inputs, metrics, curve, and a digest of each part
           weights.000 ...   best.safetensors, split

Neither command needs torch. This machine must have the same shards, tokenizer and params as the training
machine; otherwise nothing is written.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.artifact import read_manifest, verify_artifact, write_manifest
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import atomic_dir, read_json, sha256_bytes, write_atomic, write_json
from coma_gen.workspace.fingerprint import SPEED_ONLY
from coma_gen.workspace.paths import Workspace

TRAINED = "trained.json"
FORMAT = 1
BEST, CONFIG, CURVE = "best.safetensors", "config.json", "curve.csv"
MEGABYTE = 2**20
SECTIONS = ("model", "train")
"""Sections of params.yaml that must be equal on both machines."""


def pack(workspace: Workspace, folder: Path, *, part_bytes: int) -> list[Path]:
    """Writes the files to transfer into `folder`, replacing it as a whole; returns their paths.

    Raises:
        UserError: If there is no model of a finished training, or it was modified.
    """
    model = workspace.data("model")
    if not model.exists():
        remedy = "let stages/train.py end; train.max_minutes says when"
        raise UserError(Fault(str(model), "must be there to be packed", "no finished training", remedy))
    manifest = verify_artifact(model, kind="model")
    weights = (model / BEST).read_bytes()
    parts = [weights[at : at + part_bytes] for at in range(0, len(weights), part_bytes)]
    names = [f"weights.{number:03d}" for number in range(len(parts))]
    params = read_yaml(workspace.params)
    trained = {
        "format": FORMAT,
        "made_from": dict(manifest.made_from),
        "config": read_json(model / CONFIG),
        "params": {section: params[section] for section in SECTIONS},
        "metrics": read_json(workspace.metrics("train.json")),
        "curve": workspace.metrics(CURVE).read_text(encoding="utf-8"),
        "parts": {name: sha256_bytes(part) for name, part in zip(names, parts, strict=True)},
    }
    with atomic_dir(folder) as building:
        for name, part in zip(names, parts, strict=True):
            write_atomic(building / name, part)
        write_atomic(building / TRAINED, json.dumps(trained, indent=1) + "\n")
    return [folder / name for name in (TRAINED, *names)]


def unpack(workspace: Workspace, folder: Path) -> str:
    """Writes the packed model to data/model and its metrics to metrics/; returns the digest of the model.

    Raises:
        UserError: If a part is missing or modified, or params, shards or tokenizer differ from those here.
    """
    trained = read_json(folder / TRAINED)
    if not isinstance(trained, dict) or trained.get("format") != FORMAT:
        rule = f"must be what `pack` wrote, of format {FORMAT}"
        raise UserError(Fault(str(folder / TRAINED), rule, "something else"))
    faults = [*_changed_parts(folder, trained["parts"]), *_other_origin(workspace, trained)]
    if faults:
        raise UserError(*faults)
    with atomic_dir(workspace.data("model")) as building:
        content = b"".join((folder / name).read_bytes() for name in trained["parts"])
        write_atomic(building / BEST, content)
        write_atomic(building / CONFIG, json.dumps(trained["config"], indent=2) + "\n")
        shutil.copytree(workspace.data("tokenizer"), building / "tokenizer")
        made_from = trained["made_from"]
        manifest = write_manifest(building, kind="model", made_from=made_from, settings=trained["config"])
    write_json(workspace.metrics("train.json"), trained["metrics"])
    write_atomic(workspace.metrics(CURVE), trained["curve"])
    return manifest.digest


def _changed_parts(folder: Path, parts: dict[str, str]) -> list[Fault]:
    """Lists a fault for each part that is missing or modified."""
    faults = []
    for name, digest in parts.items():
        path = folder / name
        if not path.exists():
            faults.append(Fault(str(path), "must be there", "no such file", "carry it again"))
        elif sha256_bytes(path.read_bytes()) != digest:
            faults.append(Fault(str(path), "must be as it was packed", "other content", "carry it again"))
    return faults


def _other_origin(workspace: Workspace, trained: dict[str, Any]) -> list[Fault]:
    """Lists a fault for each input of the training that differs from this checkout."""
    faults = []
    for kind in ("shards", "tokenizer"):
        ours, theirs = read_manifest(workspace.data(kind), kind=kind).digest, trained["made_from"].get(kind)
        if ours != theirs:
            rule = f"must be the {kind} that were trained on ({str(theirs)[:12]}...)"
            faults.append(Fault(str(workspace.data(kind)), rule, f"{ours[:12]}..."))
    params = read_yaml(workspace.params)
    for section in SECTIONS:
        ours, theirs = params[section], trained["params"][section]
        for key in sorted(ours.keys() | theirs.keys()):
            if (section, key) not in SPEED_ONLY and ours.get(key) != theirs.get(key):
                rule = f"must be {json.dumps(theirs.get(key))}, as in the training"
                faults.append(Fault(f"{section}.{key}", rule, json.dumps(ours.get(key))))
    return faults


def main(arguments: Sequence[str] | None = None) -> None:
    """Packs or unpacks in the checkout that it is run in."""
    parser = argparse.ArgumentParser(
        prog="python -m coma_gen.workspace.carry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part-mb", type=float, default=15.0, help="maximum size of a part of the weights")
    typed = parser.parse_args(arguments)
    if not 0 < typed.part_mb * MEGABYTE >= 1:
        parser.error("--part-mb: must be large enough for one byte")
    workspace = Workspace.here(Path.cwd())
    try:
        if typed.what == "pack":
            files = pack(workspace, typed.folder, part_bytes=int(typed.part_mb * MEGABYTE))
            print(*(f"{path}  {path.stat().st_size:,} bytes" for path in files), sep="\n")  # noqa: T201
        else:
            digest = unpack(workspace, typed.folder)
            print(f"data/model {digest[:12]}; next: dvc commit --force train, dvc repro")  # noqa: T201
    except UserError as error:
        sys.exit(f"\n{error}\n")


if __name__ == "__main__":
    main()
