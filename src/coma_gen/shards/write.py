"""The shard stage: every performance as ids, in few large files, byte for byte the same however many
workers wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coma_gen.artefact import Manifest, open_artefact, read_manifest, seal
from coma_gen.corpus.performance import Performance, read_table
from coma_gen.errors import Fault, UserError
from coma_gen.files import replacing_folder, write_json
from coma_gen.music.augmentation import at_tempo
from coma_gen.music.midi import read_notes
from coma_gen.params.sections import ShardParams
from coma_gen.shards.copies import AS_PLAYED, Copy, copies_of, shift_tables
from coma_gen.shards.layout import INDEX, KIND, SHIFTS, SHIFTS_LEGEND, SPLITS, token_file
from coma_gen.tokenizer.remi import Tokenizer
from coma_gen.tokenizer.vocabulary import Ids
from coma_gen.workers import map_bounded

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
"""One row a piece. tokens counts BOS and EOS; notes are those of the MIDI file; seconds are the corpus
table's; and resolution_bits is what its code length gains at the common resolution."""


@dataclass(frozen=True)
class _Job:
    """One performance to write down, for a worker."""

    row: Performance
    midi: Path
    tokenizer: Path
    digest: str
    copies: tuple[Copy, ...]


@dataclass(frozen=True)
class _Piece:
    """One copy of one performance as ids (T,), BOS and EOS included."""

    row: Performance
    copy: Copy
    ids: Ids
    notes: int
    resolution_bits: float


def write_shards(
    shard: ShardParams,
    split_folder: Path,
    corpus_folder: Path,
    tokenizer_folder: Path,
    destination: Path,
    *,
    workers: int | None = None,
) -> dict[str, Any]:
    """Encodes the three splits and writes them as an artefact of kind "shards" (see `layout`).

    Args:
        shard: the shard section.
        split_folder: artefact "split": train.csv, validation.csv, test.csv.
        corpus_folder: what the tables' file names are relative to.
        tokenizer_folder: artefact "tokenizer".
        destination: becomes the artefact.
        workers: processes; None takes what the machine has.

    Returns:
        For each split: pieces, tokens and notes as played, copies and copy_tokens beside them; and
        shift_tables.

    Raises:
        UserError: a folder is not whole, the parts do not belong together, or a MIDI file cannot be read.
    """
    split = open_artefact(split_folder, kind="split")
    _check_corpus(split, corpus_folder)
    tokenizer = Tokenizer.load(tokenizer_folder)
    tables, kinds = shift_tables(shard, tokenizer.vocabulary)
    metrics: dict[str, Any] = {}
    with replacing_folder(destination) as building:
        for name in SPLITS:
            (building / name).mkdir()
            jobs = _jobs(shard, name, split_folder, corpus_folder, tokenizer_folder, tokenizer)
            pieces = [
                piece
                for found in map_bounded(_encode, jobs, workers=workers, desc=f"encoding {name}")
                for piece in found
            ]
            _write_split(building, name, pieces, shard.tokens_per_file)
            metrics[name] = _counts(pieces)
        np.save(building / SHIFTS, tables)
        write_json(
            building / SHIFTS_LEGEND, [{"semitones": step, "velocity_bins": louder} for step, louder in kinds]
        )
        settings = {"vocab_size": tokenizer.vocab_size, "pad_id": tokenizer.pad_id}
        settings |= {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
        made_from = {"tokenizer": tokenizer.digest, "split": split.digest}
        seal(building, kind=KIND, made_from=made_from, settings=settings)
    metrics["shift_tables"] = len(kinds)
    return metrics


def _check_corpus(split: Manifest, corpus_folder: Path) -> None:
    corpus = read_manifest(corpus_folder, kind="corpus")
    if split.made_from.get("corpus", corpus.digest) != corpus.digest:
        raise UserError(
            Fault(
                str(corpus_folder),
                "must be the corpus that the split was made from",
                "another",
                "run `dvc repro`",
            )
        )


def _jobs(
    shard: ShardParams,
    split: str,
    split_folder: Path,
    corpus_folder: Path,
    tokenizer_folder: Path,
    tokenizer: Tokenizer,
) -> list[_Job]:
    jobs, byte_pairs = [], tokenizer.vocabulary.learned
    for row in read_table(split_folder / f"{split}.csv"):
        copies = (
            copies_of(shard, row.midi_filename, byte_pairs=byte_pairs) if split == "train" else (AS_PLAYED,)
        )
        midi = corpus_folder / row.midi_filename
        jobs.append(_Job(row, midi, tokenizer_folder, tokenizer.digest, copies))
    return jobs


@lru_cache(maxsize=1)
def _tokenizer(folder: Path, digest: str) -> Tokenizer:  # noqa: ARG001 - the folder may hold another one later
    """Read once a process, for each digest."""
    return Tokenizer.load(folder)


def _encode(job: _Job) -> list[_Piece]:
    """Every copy of one performance."""
    tokenizer = _tokenizer(job.tokenizer, job.digest)
    notes = read_notes(job.midi)
    pieces = []
    for copy in job.copies:
        played = notes if copy.tempo_factor == 1.0 else at_tempo(notes, copy.tempo_factor)
        grid = tokenizer.grid(played)
        if copy.semitones or copy.velocity_bins:
            grid = grid.shifted(copy.semitones, copy.velocity_bins, tokenizer.vocabulary)
        body = tokenizer.encode_grid(grid)
        ids = np.concatenate([[tokenizer.bos_id], body, [tokenizer.eos_id]]).astype(np.uint16)
        bits = tokenizer.vocabulary.total_resolution_bits(body)
        pieces.append(_Piece(job.row, copy, ids, len(notes), bits))
    return pieces


def _write_split(folder: Path, split: str, pieces: Sequence[_Piece], tokens_per_file: int) -> None:
    """Fills files in order; a piece goes whole into one, and one longer than the limit has a file of its
    own.
    """
    rows: list[dict[str, Any]] = []
    shard, filled, waiting = 0, 0, list[Ids]()
    for piece in pieces:
        if waiting and filled + len(piece.ids) > tokens_per_file:
            np.save(token_file(folder, split, shard), np.concatenate(waiting))
            shard, filled, waiting = shard + 1, 0, []
        rows.append(_index_row(piece, split, shard, filled))
        waiting.append(piece.ids)
        filled += len(piece.ids)
    if waiting:
        np.save(token_file(folder, split, shard), np.concatenate(waiting))
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(
        table, folder / split / INDEX, compression="none", use_dictionary=False, write_statistics=False
    )


def _index_row(piece: _Piece, split: str, shard: int, offset: int) -> dict[str, Any]:
    return {
        "midi_filename": piece.row.midi_filename,
        "composer": piece.row.composer,
        "title": piece.row.title,
        "split": split,
        "copy": piece.copy.number,
        "tempo_factor": piece.copy.tempo_factor,
        "semitones": piece.copy.semitones,
        "velocity_bins": piece.copy.velocity_bins,
        "shard": shard,
        "offset": offset,
        "tokens": len(piece.ids),
        "notes": piece.notes,
        "seconds": piece.row.duration / piece.copy.tempo_factor,
        "resolution_bits": piece.resolution_bits,
    }


def _counts(pieces: Iterable[_Piece]) -> dict[str, int]:
    pieces = list(pieces)
    played = [piece for piece in pieces if piece.copy.number == 0]
    tokens = sum(len(piece.ids) for piece in played)
    return {
        "pieces": len(played),
        "tokens": tokens,
        "notes": sum(piece.notes for piece in played),
        "copies": len(pieces) - len(played),
        "copy_tokens": sum(len(piece.ids) for piece in pieces) - tokens,
    }
