"""The curve as TensorBoard's event files, for those who look at their runs there (`train.tensorboard`).

The files say what curve.csv says, under the names that MLflow has it under. They hold the time of day, so
they are no output of the stage; a run that is gone on with writes them again from its first row.
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
    """Whether event files can be written.

    Raises:
        UserError: the package that writes them is not installed.
    """
    if find_spec(PACKAGE) is None:
        remedy = "pip install -e '.[tensorboard]', or set it to false"
        raise UserError(Fault("train.tensorboard", f"needs the package {PACKAGE}", "it is missing", remedy))


class EventFiles:
    """Event files in a folder of their own, which is emptied first."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))

    def write(self, header: str, lines: str) -> None:
        """Adds rows of the curve, as its file has them."""
        names = header.strip().split(",")
        for line in lines.splitlines():
            row = {name: cell for name, cell in zip(names, line.split(","), strict=True) if cell}
            for column in NAMES.keys() & row.keys():
                self._writer.add_scalar(NAMES[column], float(row[column]), int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        """Closes the files."""
        self._writer.close()
