"""Writes parquet tables, reproducible to the byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coma_gen.core.io import rounded


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows of plain values with equal keys; floats are rounded as in the metrics files."""
    table = pa.Table.from_pylist([rounded(dict(row)) for row in rows])
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
