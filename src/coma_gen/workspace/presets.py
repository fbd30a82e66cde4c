"""Presets: named overrides of params.yaml, run as experiments.

`presets/maestro.yaml` holds only what differs from params.yaml; one that begins with `preset: maestro` holds
what differs from that. Running it is `dvc exp run` with one `-S key=value` for each leaf, so that DVC sees a
preset as it sees any change of params; flags of the user's own come after and win. `coma-gen experiment` and
ablations run on the committed params.yaml alone, so that a preset is the same run wherever it is started.
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
    """The `-S` flags of one preset.

    Args:
        root: the checkout.
        name: the preset's file name without `.yaml`.

    Raises:
        UserError: when there is no such preset, or params.yaml with it is not valid.
    """
    preset = read_preset(root, name)
    params = read_yaml(root / "params.yaml")
    check_params(params, name="params.yaml")
    check_params(merged(params, preset), name=f"presets/{name}.yaml")
    return as_flags(preset)


def require_committed_params(root: Path, where: str, settings: Settings) -> None:
    """Whether params.yaml is the committed one, but for what is set anyway.

    An experiment leaves its settings in params.yaml; a preset on top of another's would be neither.

    Args:
        root: the checkout.
        where: the file of the settings.
        settings: what it sets.

    Raises:
        UserError: it is not, with the keys; or there is no committed one.
    """
    changed = changed_params(root)
    stray = [f"{section}.{key}" for section, key in changed if key not in settings.get(section, {})]
    if stray:
        rule = f"must be the committed one where {where} says nothing"
        remedy = "`git restore params.yaml`, then name yours: -S key=value; or commit them"
        raise UserError(Fault("params.yaml", rule, ", ".join(stray), remedy))


def read_preset(root: Path, name: str, *, below: tuple[str, ...] = ()) -> Settings:
    """The sections of a preset, on top of those of the preset that it names, if any.

    Args:
        root: the checkout.
        name: the preset's file name without `.yaml`.
        below: presets that stand on this one.

    Raises:
        UserError: when there is no such preset, it is not one, or it stands on itself.
    """
    path = root / "presets" / f"{name}.yaml"
    if NAME.fullmatch(name) is None or not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        raise UserError(Fault(f"preset '{name}'", "must be a file in presets/", "", f"there are: {known}"))
    preset = read_yaml(path)
    where = f"presets/{name}.yaml"
    stands = isinstance(preset, dict) and "preset" in preset
    first = preset.pop("preset") if stands else None
    if not isinstance(preset, dict) or not all(isinstance(keys, dict) for keys in preset.values()):
        raise UserError(Fault(where, "must map section names to settings", "something else"))
    if not stands:
        return preset
    if not isinstance(first, str) or first in (name, *below):
        got = (
            f"{first!r}"
            if first == name or not isinstance(first, str)
            else f"{first}, which stands on {name}"
        )
        raise UserError(Fault(f"{where}: preset", "must name another preset, to stand on", got))
    return merged(read_preset(root, first, below=(name, *below)), preset)


def merged(settings: Settings, *changes: Settings) -> Settings:
    """Settings with changes on top, later ones winning; none of the arguments changes."""
    whole = copy.deepcopy(settings)
    for change in changes:
        for section, keys in change.items():
            whole.setdefault(section, {}).update(copy.deepcopy(keys))
    return whole


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
