"""Ablations: `presets/ablations/<name>.yaml` defines runs of every cell with every seed.

    preset: preset of presets/ that all cells use, on top of params.yaml
    base:   sections of further settings that all cells use
    seeds:  values of train.seed
    cells:  name -> why (short description), and sections with the changes from the base

The first cell is the reference. A run is a DVC experiment named <ablation>-<cell>-<seed>.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.config.load import check_params
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.presets import Settings, format_flags, merge_settings, read_preset

FOLDER = Path("presets") / "ablations"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""Cell names are parts of git references."""


@dataclass(frozen=True)
class Run:
    """One cell with one seed.

    Attributes:
        name: Name of the experiment.
        cell: Name of the cell.
        seed: Value of train.seed.
        params: All settings of the experiment.
        flags: The `-S` flags of `dvc exp run`.
    """

    name: str
    cell: str
    seed: int
    params: Settings
    flags: list[str]


@dataclass(frozen=True)
class Ablation:
    """All runs of one ablation.

    Attributes:
        name: Name of the file.
        cells: Name -> description; the first cell is the reference.
        runs: Runs ordered by seed, so that results for all cells are available early.
    """

    name: str
    cells: Mapping[str, str]
    runs: tuple[Run, ...]

    @property
    def reference(self) -> str:
        """The cell that the others are compared with."""
        return next(iter(self.cells))


def read_ablation(root: Path, name: str) -> Ablation:
    """Reads an ablation and validates the params of every cell.

    Args:
        root: The checkout.
        name: File name without `.yaml`.

    Raises:
        UserError: If there is no such file, it is malformed, or cells are invalid; lists all faults.
    """
    path = root / FOLDER / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        raise UserError(
            Fault(f"ablation '{name}'", f"must be a file in {FOLDER}/", "", f"there are: {known}")
        )
    content = read_yaml(path)
    where = f"{FOLDER}/{name}.yaml"
    _check_form(content, where)
    params, faults = read_yaml(root / "params.yaml"), list[Fault]()
    base = merge_settings(read_preset(root, content["preset"]), content["base"])
    for cell, settings in content["cells"].items():
        try:
            check_params(merge_settings(params, base, _select_sections(settings)), name=f"{where}: {cell}")
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(*faults)
    runs = [
        _build_run(
            name,
            cell,
            seed,
            params,
            merge_settings(base, _select_sections(settings), {"train": {"seed": seed}}),
        )
        for seed in content["seeds"]
        for cell, settings in content["cells"].items()
    ]
    whys = {cell: str(settings["why"]) for cell, settings in content["cells"].items()}
    return Ablation(name, whys, tuple(runs))


def _build_run(ablation: str, cell: str, seed: int, params: Settings, changes: Settings) -> Run:
    return Run(
        f"{ablation}-{cell}-{seed}", cell, seed, merge_settings(params, changes), format_flags(changes)
    )


def _check_form(content: Any, where: str) -> None:
    """Checks the structure of the file: four keys, and named cells with a description each."""
    if not isinstance(content, dict) or set(content) != {"preset", "base", "seeds", "cells"}:
        raise UserError(Fault(where, "must have preset, base, seeds and cells, and nothing else"))
    base, seeds, cells = content["base"], content["seeds"], content["cells"]
    faults = []
    if not isinstance(base, dict) or not all(isinstance(keys, dict) for keys in base.values()):
        faults.append(Fault(f"{where}: base", "must map section names to settings"))
    is_whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not is_whole or not seeds or len(set(seeds)) != len(seeds):
        faults.append(Fault(f"{where}: seeds", "must be different whole numbers from 0", str(seeds)))
    if not isinstance(cells, dict) or not cells:
        raise UserError(*faults, Fault(f"{where}: cells", "must map names to settings, at least one"))
    for cell, settings in cells.items():
        at = f"{where}: {cell}"
        if not isinstance(cell, str) or not NAME.fullmatch(cell):
            faults.append(Fault(at, "must be named with lower-case letters, digits and single hyphens"))
        if not isinstance(settings, dict) or not isinstance(settings.get("why"), str):
            faults.append(Fault(at, "must have a description, `why`"))
        elif not all(isinstance(keys, dict) for keys in _select_sections(settings).values()):
            faults.append(Fault(at, "must map section names to settings"))
        elif "seed" in settings.get("train", {}):
            faults.append(Fault(f"{at}: train.seed", "must not be set: `seeds` sets it"))
    if faults:
        raise UserError(*faults)


def _select_sections(settings: Mapping[str, Any]) -> Settings:
    return {section: keys for section, keys in settings.items() if section != "why"}
