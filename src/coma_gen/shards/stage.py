"""The `shard` stage: encodes all performances to a few large files, bitwise identical for any parallelism.

A single writer consumes the pieces in order and buffers one file at a time, whether they come from this
process, from worker processes or from parts written by other machines (tasks.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coma_gen.config.schema import ShardParams
from coma_gen.core.artifact import write_manifest
from coma_gen.core.io import atomic_dir, write_json
from coma_gen.core.parallel import imap_processes
from coma_gen.corpus.table import read_table
from coma_gen.shards.augment import shift_tables
from coma_gen.shards.encode import EncodedPerformance, ShardInputs, encode
from coma_gen.shards.layout import INDEX, KIND, SHIFTS, SHIFTS_LEGEND, SPLITS, token_file
from coma_gen.tokenizer.vocabulary import Ids

SCHEMA = pa.schema(
    [
        ("midi_filename", pa.string()),
        ("composer", pa.string()),
        ("title", pa.string()),
        ("split", pa.string()),
        ("copy", pa.int32()),
        ("tempo_factor", pa.float64()),
        ("semitones", pa.int32()),
        ("velocity_bins", pa.int32()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("tokens", pa.int64()),
        ("notes", pa.int64()),
        ("seconds", pa.float64()),
        ("resolution_bits", pa.float64()),
    ]
)
"""Schema of the index, one row per piece. tokens includes BOS and EOS, notes counts those of the MIDI file,
seconds is the duration in the corpus table / tempo_factor, and resolution_bits is added to the code length
at the common resolution.
"""

ROWS_AT_ONCE = 4096
"""Number of index rows that are buffered."""


def write_shards(
    shard: ShardParams,
    split_folder: Path,
    corpus_folder: Path,
    tokenizer_folder: Path,
    destination: Path,
    *,
    workers: int | None = None,
) -> dict[str, Any]:
    """Encodes the three splits and writes them as an artifact of kind "shards" (see `layout`).

    Args:
        shard: Shard section.
        split_folder: Artifact "split" with train.csv, validation.csv and test.csv.
        corpus_folder: Folder that the tables' file names are relative to.
        tokenizer_folder: Artifact "tokenizer".
        destination: Artifact to write.
        workers: Number of processes; None for the number of cores.

    Returns:
        For each split pieces, tokens and notes of the originals, and copies and copy_tokens of augmented
        copies; and shift_tables.

    Raises:
        UserError: If an artifact is not intact, the inputs do not match, or a MIDI file cannot be read.
    """
    source = ShardInputs.of(shard, split_folder, corpus_folder, tokenizer_folder)
    table = [row for split in SPLITS for row in read_table(split_folder / f"{split}.csv")]
    encoded = imap_processes(partial(encode, source=source), table, workers=workers, desc="encoding")
    return assemble(source, chain.from_iterable(encoded), destination)


def assemble(source: ShardInputs, pieces: Iterable[EncodedPerformance], destination: Path) -> dict[str, Any]:
    """Writes pieces as an artifact of kind "shards".

    Args:
        source: Inputs of the pieces.
        pieces: Pieces of the three splits, in the order of `SPLITS` and of their tables.
        destination: Artifact to write; unchanged on error.

    Returns:
        As in `write_shards`.
    """
    tokenizer = source.open_tokenizer()
    tables, kinds = shift_tables(source.shard, tokenizer.vocabulary)
    metrics: dict[str, Any] = {}
    with atomic_dir(destination) as building:
        for split, group in groupby(pieces, key=lambda piece: str(piece.row["split"])):
            metrics[split] = write_split(building, split, group, source.shard.tokens_per_file)
        np.save(building / SHIFTS, tables)
        write_json(
            building / SHIFTS_LEGEND, [{"semitones": step, "velocity_bins": louder} for step, louder in kinds]
        )
        settings = {"vocab_size": tokenizer.vocab_size, "pad_id": tokenizer.pad_id}
        settings |= {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
        write_manifest(building, kind=KIND, made_from=source.made_from, settings=settings)
    metrics["shift_tables"] = len(kinds)
    return metrics


def write_split(
    folder: Path, split: str, pieces: Iterable[EncodedPerformance], tokens_per_file: int
) -> dict[str, int]:
    """Writes pieces to files in order; no piece spans two files, and one longer than the limit gets its own.

    Returns:
        pieces, tokens and notes of the originals, copies and copy_tokens of augmented copies.
    """
    (folder / split).mkdir()
    counts: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    waiting: list[Ids] = []
    shard, filled = 0, 0
    with pq.ParquetWriter(
        folder / split / INDEX, SCHEMA, compression="none", use_dictionary=False, write_statistics=False
    ) as index:
        for piece in pieces:
            if waiting and filled + len(piece.ids) > tokens_per_file:
                np.save(token_file(folder, split, shard), np.concatenate(waiting))
                shard, filled, waiting = shard + 1, 0, []
            rows.append(piece.row | {"shard": shard, "offset": filled})
            waiting.append(piece.ids)
            filled += len(piece.ids)
            counts += _count_piece(piece)
            if len(rows) == ROWS_AT_ONCE:
                index.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                rows = []
        if waiting:
            np.save(token_file(folder, split, shard), np.concatenate(waiting))
        if rows:
            index.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    return {name: counts[name] for name in ("pieces", "tokens", "notes", "copies", "copy_tokens")}


def _count_piece(piece: EncodedPerformance) -> Counter[str]:
    if piece.row["copy"]:
        return Counter(copies=1, copy_tokens=len(piece.ids))
    return Counter(pieces=1, tokens=len(piece.ids), notes=piece.row["notes"])
