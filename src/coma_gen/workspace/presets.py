"""Presets: named overrides of params.yaml, run as experiments.

`presets/maestro.yaml` contains only the differences from params.yaml; a preset that begins with `preset:
maestro` contains the differences from that one. A preset is run as `dvc exp run` with one `-S key=value` per
setting; flags of the user come last and take precedence. `coma-gen experiment` and ablations require the
committed params.yaml, so that a preset is the same run everywhere.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coma_gen.config.load import check_params
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.verify import changed_params

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Settings = dict[str, dict[str, Any]]
"""Section -> key -> value."""


def preset_flags(root: Path, name: str) -> list[str]:
    """Composes the `-S` flags of a preset.

    Args:
        root: The checkout.
        name: File name of the preset without `.yaml`.

    Raises:
        UserError: If there is no such preset, or params.yaml with it is invalid.
    """
    preset = read_preset(root, name)
    params = read_yaml(root / "params.yaml")
    check_params(params, name="params.yaml")
    check_params(merge_settings(params, preset), name=f"presets/{name}.yaml")
    return format_flags(preset)


def require_committed_params(root: Path, where: str, settings: Settings) -> None:
    """Checks that params.yaml is the committed one, except for settings that are overridden anyway.

    An experiment leaves its settings in params.yaml; a preset on top of those would be a mixture.

    Args:
        root: The checkout.
        where: File of the settings.
        settings: Settings that are overridden.

    Raises:
        UserError: If other settings were changed (lists the keys), or there is no committed file.
    """
    changed = changed_params(root)
    stray = [f"{section}.{key}" for section, key in changed if key not in settings.get(section, {})]
    if stray:
        rule = f"must be the committed one where {where} says nothing"
        remedy = "`git restore params.yaml`, then name yours: -S key=value; or commit them"
        raise UserError(Fault("params.yaml", rule, ", ".join(stray), remedy))


def read_preset(root: Path, name: str, *, below: tuple[str, ...] = ()) -> Settings:
    """Reads the settings of a preset, merged with those of the preset that it extends, if any.

    Args:
        root: The checkout.
        name: File name of the preset without `.yaml`.
        below: Presets that extend this one.

    Raises:
        UserError: If there is no such preset, it is malformed, or it extends itself.
    """
    path = root / "presets" / f"{name}.yaml"
    if NAME.fullmatch(name) is None or not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        raise UserError(Fault(f"preset '{name}'", "must be a file in presets/", "", f"there are: {known}"))
    preset = read_yaml(path)
    where = f"presets/{name}.yaml"
    extends = isinstance(preset, dict) and "preset" in preset
    first = preset.pop("preset") if extends else None
    if not isinstance(preset, dict) or not all(isinstance(keys, dict) for keys in preset.values()):
        raise UserError(Fault(where, "must map section names to settings", "something else"))
    if not extends:
        return preset
    if not isinstance(first, str) or first in (name, *below):
        got = (
            f"{first!r}" if first == name or not isinstance(first, str) else f"{first}, which extends {name}"
        )
        raise UserError(Fault(f"{where}: preset", "must name another preset to extend", got))
    return merge_settings(read_preset(root, first, below=(name, *below)), preset)


def merge_settings(settings: Settings, *changes: Settings) -> Settings:
    """Merges changes into a copy of the settings; later changes take precedence."""
    whole = copy.deepcopy(settings)
    for change in changes:
        for section, keys in change.items():
            whole.setdefault(section, {}).update(copy.deepcopy(keys))
    return whole


def format_flags(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Composes the `-S` flags by which `dvc exp run` changes these settings."""
    changes = [
        f"{section}.{key}={_format_value(value)}"
        for section, keys in settings.items()
        for key, value in keys.items()
    ]
    return [part for change in changes for part in ("-S", change)]


def _format_value(value: Any) -> str:
    """Formats a value for `dvc exp run -S`: as JSON, or unquoted if it is a plain word or path."""
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z/][\w./-]*", value)
    if is_word and value.lower() not in ("null", "true", "false", "nan", "inf"):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
