"""Where the weights lie that come with the project; `coma_gen.experiments.pretrained` makes them."""

from __future__ import annotations

import sys
from pathlib import Path

from coma_gen.core.artifact import MANIFEST

NAME = "pretrained"
"""What `--model` and `load_model` call it."""

MODEL_HELP = (
    "a folder, pretrained, or an MLflow URI (default: data/model; pretrained where nothing was trained)"
)
"""What commands say of their option `--model`."""

CANDIDATES = (
    Path(__file__).parents[3] / NAME / "model",  # a checkout
    Path(sys.prefix) / "share" / "coma-gen" / NAME / "model",  # a wheel
)


def find_pretrained() -> Path | None:
    """The folder of the model that comes with the project; None where it was left out."""
    return next((folder for folder in CANDIDATES if (folder / MANIFEST).is_file()), None)


def name_of_model(named: str | None, folder: Path) -> str | None:
    """How a command names the model that it was given, or found; None for the checkout's own.

    Args:
        named: what was asked for; None for what there is.
        folder: what was found.
    """
    return NAME if named is None and folder == find_pretrained() else named
