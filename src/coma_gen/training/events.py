"""TensorBoard event files of the training curve (`train.tensorboard`).

The files contain the values of curve.csv under the metric names used in MLflow. They contain timestamps, so
they are not an output of the stage; a resumed run rewrites them from its first row.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from coma_gen.core.errors import Fault, UserError

NAMES = {
    "train_loss": "loss/train",
    "validation_nll": "loss/validation",
    "learning_rate": "optimizer/learning_rate",
    "grad_norm": "optimizer/grad_norm",
}
"""Column of the curve -> name in TensorBoard."""
PACKAGE = "tensorboardX"


def check_tensorboard() -> None:
    """Checks that event files can be written.

    Raises:
        UserError: If tensorboardX is not installed.
    """
    if find_spec(PACKAGE) is None:
        remedy = "pip install -e '.[tensorboard]', or set it to false"
        raise UserError(Fault("train.tensorboard", f"needs the package {PACKAGE}", "it is missing", remedy))


class EventFiles:
    """Writes event files to a folder, which is emptied first."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))

    def write(self, header: str, lines: str) -> None:
        """Adds lines of curve.csv."""
        names = header.strip().split(",")
        for line in lines.splitlines():
            row = {name: cell for name, cell in zip(names, line.split(","), strict=True) if cell}
            for column in NAMES.keys() & row.keys():
                self._writer.add_scalar(NAMES[column], float(row[column]), int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        """Closes the files."""
        self._writer.close()
