"""Presets: named overrides of params.yaml, run as experiments.

`presets/maestro.yaml` holds only what differs from params.yaml. Running it is `dvc exp run` with one `-S
key=value` for each leaf, so that DVC sees a preset as it sees any change of params; flags of the user's own
come after and win.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from coma_gen.errors import Fault, UserError
from coma_gen.params.load import check_params
from coma_gen.params.reading import read_yaml


def preset_flags(root: Path, name: str) -> list[str]:
    """The `-S` flags of one preset.

    Args:
        root: the checkout.
        name: the preset's file name without `.yaml`.

    Raises:
        UserError: when there is no such preset, or params.yaml with it is not valid.
    """
    path = root / "presets" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        raise UserError(Fault(f"preset '{name}'", "must be a file in presets/", "", f"there are: {known}"))
    preset = read_yaml(path)
    if not isinstance(preset, dict) or not all(isinstance(keys, dict) for keys in preset.values()):
        raise UserError(Fault(f"presets/{name}.yaml", "must map section names to settings", "something else"))
    params = copy.deepcopy(read_yaml(root / "params.yaml"))
    flags = []
    for section, settings in preset.items():
        params.setdefault(section, {}).update(settings)
        flags += [f"{section}.{key}={_written(value)}" for key, value in settings.items()]
    check_params(params, name=f"presets/{name}.yaml")
    return [part for flag in flags for part in ("-S", flag)]


def _written(value: Any) -> str:
    """A value in the grammar of `dvc exp run -S`: JSON is a part of it, but for text, which stands bare."""
    return value if isinstance(value, str) else json.dumps(value)
