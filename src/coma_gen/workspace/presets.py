"""Presets: named overrides of params.yaml, run as experiments.

`presets/maestro.yaml` holds only what differs from params.yaml. Running it is `dvc exp run` with one `-S
key=value` for each leaf, so that DVC sees a preset as it sees any change of params; flags of the user's own
come after and win.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
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
    preset = read_preset(root, name)
    params = copy.deepcopy(read_yaml(root / "params.yaml"))
    for section, settings in preset.items():
        params.setdefault(section, {}).update(settings)
    check_params(params, name=f"presets/{name}.yaml")
    return as_flags(preset)


def read_preset(root: Path, name: str) -> dict[str, dict[str, Any]]:
    """The sections of a preset, as they stand in its file.

    Raises:
        UserError: when there is no such preset, or it is not one.
    """
    path = root / "presets" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        raise UserError(Fault(f"preset '{name}'", "must be a file in presets/", "", f"there are: {known}"))
    preset = read_yaml(path)
    if not isinstance(preset, dict) or not all(isinstance(keys, dict) for keys in preset.values()):
        raise UserError(Fault(f"presets/{name}.yaml", "must map section names to settings", "something else"))
    return preset


def as_flags(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The `-S` flags that make `dvc exp run` change these settings, section by section."""
    changes = [
        f"{section}.{key}={_written(value)}"
        for section, keys in settings.items()
        for key, value in keys.items()
    ]
    return [part for change in changes for part in ("-S", change)]


def _written(value: Any) -> str:
    """A value in the grammar of `dvc exp run -S`: JSON is a part of it. A plain word or path stands bare."""
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z/][\w./-]*", value)
    if is_word and value.lower() not in ("null", "true", "false", "nan", "inf"):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
