"""Locates the pretrained model that ships with the project; `coma_gen.experiments.pretrained` builds it."""

from __future__ import annotations

import sys
from pathlib import Path

from coma_gen.core.artifact import MANIFEST

NAME = "pretrained"
"""Name of the pretrained model in `--model` and `load_model`."""

MODEL_HELP = "model folder, pretrained, or MLflow URI (default: data/model if trained, else pretrained)"
"""Help text of the option `--model`."""

CANDIDATES = (
    Path(__file__).parents[3] / NAME / "model",  # a checkout
    Path(sys.prefix) / "share" / "coma-gen" / NAME / "model",  # a wheel
)


def find_pretrained() -> Path | None:
    """Finds the folder of the model that ships with the project; None if it was not installed."""
    return next((folder for folder in CANDIDATES if (folder / MANIFEST).is_file()), None)


def name_of_model(named: str | None, folder: Path) -> str | None:
    """Returns the display name of the model in use; None for the checkout's own.

    Args:
        named: The requested model, or None for the default.
        folder: The folder that it was resolved to.
    """
    return NAME if named is None and folder == find_pretrained() else named
