"""Where the weights lie that come with the project; `coma_gen.experiments.pretrained` makes them."""

from __future__ import annotations

import sys
from pathlib import Path

from coma_gen.core.artifact import MANIFEST

NAME = "pretrained"
"""What `--model` and `load_model` call it."""

PLACES = (
    Path(__file__).parents[3] / NAME / "model",  # a checkout
    Path(sys.prefix) / "share" / "coma-gen" / NAME / "model",  # a wheel
)


def find_pretrained() -> Path | None:
    """The folder of the model that comes with the project; None where it was left out."""
    return next((place for place in PLACES if (place / MANIFEST).is_file()), None)
