"""`coma-gen serve`: serve a model over HTTP on this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.paths import Workspace

if TYPE_CHECKING:
    from coma_gen.serving.schema import Limits

EXAMPLES = """examples:
  coma-gen serve                               the best model of MLflow's registry, at 127.0.0.1:5001,
                                               or the pretrained one if there is none
  coma-gen serve --model models:/coma-gen/3    version 3; or a model folder, or pretrained
  coma-gen serve --max-seconds 600 --at-once 4

It prints an example request; docs/serving.md describes requests and responses.
"""
CHAMPION = "models:/coma-gen@champion"
LIBRARY = Path(__file__).parents[1]
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def add_command(commands: Any) -> None:
    """Adds `serve` to the sub-commands of an argparse parser."""
    parser = commands.add_parser(
        "serve",
        help="continue MIDI files over HTTP",
        description="Serve a model over HTTP on this machine. Stop with Ctrl-C.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        metavar="MODEL",
        help=f"MLflow URI, model folder, or pretrained (default: {CHAMPION}, or else pretrained)",
    )
    add("--port", type=int, default=5001, metavar="N", help="port on 127.0.0.1; 0 for any (default: 5001)")
    add(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="CPU threads per request; results depend on it (default: 1)",
    )
    add_limits(parser)
    add("--at-once", type=int, metavar="N", help="maximum concurrent requests; others wait (default: 2)")
    parser.set_defaults(run=run)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Adds the options that limit one request."""
    add = parser.add_argument
    add(
        "--max-seconds",
        type=float,
        metavar="S",
        help="limit on seconds of new music per piece (default: 300)",
    )
    add("--max-tokens", type=int, metavar="N", help="limit on new tokens per piece (default: 20000)")
    add("--max-pieces", type=int, metavar="N", help="limit on pieces per request (default: 16)")
    add(
        "--max-prompt-bytes", type=int, metavar="N", help="limit on the MIDI file in bytes (default: 1048576)"
    )


def requested_limits(options: argparse.Namespace) -> tuple[dict[str, Any], Limits]:
    """Returns the limits that the options set, and all limits including defaults.

    Raises:
        UserError: With one fault for each option that is out of range, including port and threads.
    """
    from coma_gen.serving.schema import Limits

    named = {field.name: getattr(options, field.name, None) for field in fields(Limits)}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    limits = Limits(**given)
    faults = [Fault(f"--{fault.where.replace('_', '-')}", fault.rule, fault.got) for fault in limits.faults()]
    for name, value, low, high in (
        ("--port", options.port, 0, 65535),
        ("--threads", options.threads, 1, 1024),
    ):
        if not low <= value <= high:
            faults.append(Fault(name, f"must be {low} to {high}", str(value)))
    if faults:
        raise UserError(*faults)
    return given, limits


def run(workspace: Workspace, options: argparse.Namespace, _rest: list[str]) -> int:
    """Replaces this process with the server, so that signals reach it directly."""
    from coma_gen.core.seeding import pin_cpu
    from coma_gen.tracking.model_store import find_model_store, is_uri

    given, limits = requested_limits(options)
    named = options.model or _choose_default(workspace)
    environment = QUIET | {"SERVING_MODEL_CONFIG": json.dumps(given)}
    words = ["--port", str(options.port), "--max-body-bytes", str(limits.max_body_bytes), "--name", named]
    if is_uri(named):
        environment["MLFLOW_TRACKING_URI"] = find_model_store(named, workspace.home).uri
        served = named
    else:
        served = str(_pack(workspace, named))
    pin_cpu(pin=True, threads=options.threads)
    os.environ |= environment
    program = LIBRARY / "serving" / "app.py"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", str(program), served, *words])  # noqa: S606 - no shell


def _choose_default(workspace: Workspace) -> str:
    """The best model of the registry, or the pretrained model if no store is named and none exists."""
    from coma_gen.tracking.uri import SQLITE, URI, check_address
    from coma_gen.workspace.pretrained import NAME, find_pretrained

    store = Path(check_address(workspace.home).uri.removeprefix(SQLITE))
    is_new = not os.environ.get(URI) and not store.exists()
    return NAME if is_new and find_pretrained() else CHAMPION


def _pack(workspace: Workspace, named: str) -> Path:
    """Packs a model folder as an MLflow model, once for each version of model and code.

    Raises:
        UserError: If there is no such folder, or it is damaged.
    """
    from coma_gen.core.artifact import verify_artifact
    from coma_gen.core.io import atomic_dir, sha256_bytes, without_links
    from coma_gen.tracking.model_store import named_model
    from coma_gen.tracking.registry import pack_model

    with named_model(named, workspace) as folder, without_links(folder) as plain:
        digest = verify_artifact(folder, kind="model").digest
        code = sha256_bytes(b"".join(file.read_bytes() for file in sorted(LIBRARY.rglob("*.py"))))
        packed = workspace.home / ".dvc" / "tmp" / "served" / f"{digest[:16]}-{code[:16]}"
        if not packed.exists():
            packed.parent.mkdir(parents=True, exist_ok=True)
            with atomic_dir(packed) as building:
                pack_model(building / "model", folder=plain)
    return packed / "model"
