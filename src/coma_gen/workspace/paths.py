"""Where things live: the checkout that a stage runs in, and the home where what outlives a run is kept.

Under `dvc exp run --temp` and `--queue` a stage runs in a temporary copy of the repository, while `DVC_ROOT`
names the real one. What a stage writes belongs to the copy; downloads, the resume folder and the MLflow store
belong to the home.
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
        root: the checkout that the stage works in.
        home: the checkout that lasts; the same, but for experiments run in a temporary copy.
    """

    root: Path
    home: Path

    @classmethod
    def here(cls, root: Path) -> Workspace:
        """The workspace at `root`, its home as DVC tells it."""
        resolved = root.resolve()
        return cls(root=resolved, home=Path(os.environ.get("DVC_ROOT") or resolved).resolve())

    @classmethod
    def around(cls, folder: Path) -> Workspace | None:
        """The checkout that `folder` lies in; None outside of any."""
        start = folder.resolve()
        for parent in (start, *start.parents):
            if (parent / "dvc.yaml").exists() and (parent / "params.yaml").exists():
                return cls.here(parent)
        return None

    @property
    def params(self) -> Path:
        """The settings."""
        return self.root / "params.yaml"

    @property
    def downloads(self) -> Path:
        """What was fetched, checked, and need not be fetched again."""
        return self.home / ".downloads"

    @property
    def resume(self) -> Path:
        """Checkpoints of unfinished training, a folder for each combination of params, data and code."""
        return self.home / ".resume"

    def data(self, name: str) -> Path:
        """The folder or file that a stage writes under data/."""
        return self.root / "data" / name

    def metrics(self, name: str) -> Path:
        """The file that a stage writes under metrics/."""
        return self.root / "metrics" / name

    def write_metrics(self, stage: str, metrics: Mapping[str, Any]) -> None:
        """Writes metrics/<stage>.json."""
        write_json(self.metrics(f"{stage}.json"), dict(metrics))

    def model_folder(self, name: str) -> Path:
        """The folder of a model that a setting names: `pretrained`, or an absolute path."""
        return self.root / name / "model" if name == "pretrained" else Path(name)

    def own_folder(self, path: str) -> Path:
        """A folder that the user named: `~` is their home, and a relative path starts at the checkout."""
        given = Path(path).expanduser()
        return given if given.is_absolute() else self.root / given
