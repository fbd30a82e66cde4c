"""Tables for people and programs: parquet, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coma_gen.core.io import rounded


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows of plain values, all of the same keys; floats are rounded as those of metrics are."""
    table = pa.Table.from_pylist([rounded(dict(row)) for row in rows])
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
