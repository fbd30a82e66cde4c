"""Resumable tasks that encode shards on many processes or machines.

The performances are divided into tasks of a fixed size. Each task reads its own table and writes its own
part, independently of the others; joining the parts in order gives exactly the bytes that one process would
write.

    tables/00012.csv    performances of task 12, all of one split
    parts/00012/        its part: <split>/tokens-*.npy, <split>/index.parquet and a manifest
    plan.json           task size and number of tasks; written after all tables
    log/                logs and completion marks of the executor
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from coma_gen.core.artifact import verify_artifact, write_manifest
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import atomic_dir, read_json, write_json
from coma_gen.corpus.table import read_table, write_table
from coma_gen.shards.encode import EncodedPerformance, ShardInputs, encode
from coma_gen.shards.layout import INDEX, SPLITS, token_file
from coma_gen.shards.stage import assemble, write_split

KIND = "shards-part"
PLAN = "plan.json"
FILES_PER_TASK = 256
"""Performances per task, the most work that is lost when a worker is killed."""


@dataclass(frozen=True)
class Parts:
    """Parts of the shards, one per task.

    Attributes:
        source: Inputs of the shards.
        folder: Folder of the parts of this source and task size.
        tasks: Split -> number of tasks; tasks are numbered consecutively in the order of the splits.
    """

    source: ShardInputs
    folder: Path
    tasks: Mapping[str, int]

    @classmethod
    def divide(cls, source: ShardInputs, folder: Path, *, files_per_task: int | None = None) -> Parts:
        """Writes the tables of the tasks unless they exist; several machines may do so concurrently.

        Args:
            source: Inputs of the shards.
            folder: Folder of the parts.
            files_per_task: Performances per task; None for the existing value, or `FILES_PER_TASK`.

        Raises:
            UserError: If the folder was divided with another task size.
        """
        if not (folder / PLAN).exists():
            size = files_per_task or FILES_PER_TASK
            tasks, numbers = {}, count()
            for split in SPLITS:
                table = read_table(source.split / f"{split}.csv")
                starts = range(0, len(table), size)
                for start in starts:
                    write_table(_table_path(folder, next(numbers)), table[start : start + size])
                tasks[split] = len(starts)
            write_json(folder / PLAN, {"files_per_task": size, "tasks": tasks})
        plan = read_json(folder / PLAN)
        if files_per_task not in (None, plan["files_per_task"]):
            rule = f"must be {plan['files_per_task']}, as for the existing parts in {folder}"
            raise UserError(Fault("--files-per-task", rule, str(files_per_task), "or remove that folder"))
        return cls(source, folder, plan["tasks"])

    def __len__(self) -> int:
        return sum(self.tasks.values())

    @property
    def log(self) -> Path:
        """Folder of the executor's logs and completion marks."""
        return self.folder / "log"

    def write(self, number: int) -> None:
        """Runs one task, which writes its part atomically.

        Raises:
            UserError: If a MIDI file cannot be read or an input has changed.
        """
        table = read_table(_table_path(self.folder, number))
        pieces = (piece for row in table for piece in encode(row, source=self.source))
        with atomic_dir(self._part(number)) as building:
            write_split(building, table[0].split, pieces, self.source.shard.tokens_per_file)
            write_manifest(building, kind=KIND, made_from=self.source.made_from, settings={})

    def unfinished(self, tasks: range | None = None) -> list[int]:
        """Returns the tasks, among `tasks` or all, whose part is missing or damaged."""
        numbers = range(len(self)) if tasks is None else tasks
        return [number for number in numbers if not self._is_intact(number)]

    def join(self, destination: Path) -> dict[str, Any]:
        """Joins the parts, in order, to an artifact of kind "shards".

        Returns:
            As in `write_shards`.

        Raises:
            UserError: If a part is missing.
        """
        if missing := self.unfinished():
            got = f"{len(self) - len(missing)}, the first missing is {missing[0]:05d}"
            remedy = "write the missing parts first"
            raise UserError(Fault(str(self.folder), f"must hold all {len(self)} parts", got, remedy))
        return assemble(self.source, self._pieces(), destination)

    def _pieces(self) -> Iterator[EncodedPerformance]:
        splits = [split for split, tasks in self.tasks.items() for _ in range(tasks)]
        for number, split in enumerate(tqdm(splits, desc="joining", unit="part", disable=None)):
            yield from _read_part(self._part(number), split)

    def _part(self, number: int) -> Path:
        return self.folder / "parts" / f"{number:05d}"

    def _is_intact(self, number: int) -> bool:
        try:
            verify_artifact(self._part(number), kind=KIND)
        except UserError:
            return False
        return True


def _table_path(folder: Path, number: int) -> Path:
    return folder / "tables" / f"{number:05d}.csv"


def _read_part(part: Path, split: str) -> Iterator[EncodedPerformance]:
    """Yields the pieces of one part in order, reading lazily."""
    opened, tokens = -1, np.zeros(0, np.uint16)
    with pq.ParquetFile(part / split / INDEX) as index:
        for batch in index.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                shard, start = row.pop("shard"), row.pop("offset")
                if shard != opened:
                    opened, tokens = shard, np.load(token_file(part, split, shard), mmap_mode="r")
                yield EncodedPerformance(row, tokens[start : start + row["tokens"]])
