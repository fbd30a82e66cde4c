"""The paths of a checkout: the root that a stage runs in, and the permanent home.

With `dvc exp run --temp` and `--queue`, a stage runs in a temporary copy of the repository, and `DVC_ROOT` is
the original. Outputs of stages are in the copy; downloads, the resume folder and the MLflow store are in the
original.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coma_gen.core.io import write_json


@dataclass(frozen=True)
class Workspace:
    """The paths of one run.

    Attributes:
        root: The checkout that the stage runs in.
        home: The permanent checkout; differs from `root` for experiments in a temporary copy.
    """

    root: Path
    home: Path

    @classmethod
    def here(cls, root: Path) -> Workspace:
        """Returns the workspace at `root`; its home is `DVC_ROOT` if DVC sets it, else `root`."""
        resolved = root.resolve()
        return cls(root=resolved, home=Path(os.environ.get("DVC_ROOT") or resolved).resolve())

    @classmethod
    def around(cls, folder: Path) -> Workspace | None:
        """Returns the checkout that contains `folder`; None outside of any."""
        start = folder.resolve()
        for parent in (start, *start.parents):
            if (parent / "dvc.yaml").exists() and (parent / "params.yaml").exists():
                return cls.here(parent)
        return None

    @property
    def params(self) -> Path:
        """Path of params.yaml."""
        return self.root / "params.yaml"

    @property
    def downloads(self) -> Path:
        """Cache of verified downloads."""
        return self.home / ".downloads"

    @property
    def resume(self) -> Path:
        """Resume folders of training and sharding, one per combination of params, data and code."""
        return self.home / ".resume"

    def data(self, name: str) -> Path:
        """Returns the path of a stage output under data/."""
        return self.root / "data" / name

    def metrics(self, name: str) -> Path:
        """Returns the path of a metrics file under metrics/."""
        return self.root / "metrics" / name

    def write_metrics(self, stage: str, metrics: Mapping[str, Any]) -> None:
        """Writes metrics/<stage>.json."""
        write_json(self.metrics(f"{stage}.json"), dict(metrics))

    def model_folder(self, name: str) -> Path:
        """Returns the folder of a model named by a setting: `pretrained`, or an absolute path."""
        return self.root / name / "model" if name == "pretrained" else Path(name)

    def own_folder(self, path: str) -> Path:
        """Resolves a folder named by the user: expands `~`; relative paths are relative to the checkout."""
        given = Path(path).expanduser()
        return given if given.is_absolute() else self.root / given
