"""Reads a CSV file that another process is writing.

The file may not exist yet, its last line may be incomplete, and it may become shorter when training resumes
from a checkpoint. Only lines that end with a newline are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coma_gen.core.errors import Fault, UserError


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        step: Number of completed optimizer steps.
        values: Column -> value, without empty cells.
    """

    step: int
    values: Mapping[str, float]


def read_rows(path: Path) -> list[Row]:
    """Reads the complete lines of a CSV file whose first column is `step`.

    Returns:
        The rows in file order; an empty list if there is no file.

    Raises:
        UserError: If a complete line is not a row of numbers.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = content.decode("utf-8", errors="replace").split("\n")[:-1]
    if not lines:
        return []
    header = lines[0].split(",")
    if header[0] != "step":
        raise UserError(Fault(f"{path}:1", "the first column must be 'step'", repr(header[0])))
    return [_parse_row(path, number, header, line) for number, line in enumerate(lines[1:], start=2)]


def _parse_row(path: Path, number: int, header: list[str], line: str) -> Row:
    cells = line.split(",")
    if len(cells) != len(header):
        raise UserError(Fault(f"{path}:{number}", f"must have {len(header)} cells", str(len(cells))))
    try:
        values = {name: float(cell) for name, cell in zip(header[1:], cells[1:], strict=True) if cell}
        return Row(step=int(cells[0]), values=values)
    except ValueError as error:
        raise UserError(Fault(f"{path}:{number}", "must hold numbers", str(error))) from None


def is_same(one: float, other: float) -> bool:
    """Whether MLflow stores two values identically: NaN equals NaN, and infinity equals the largest float."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    largest = 1.7976931348623157e308
    return max(-largest, min(largest, one)) == max(-largest, min(largest, other))
