"""Divides the corpus into train, validation and test.

Every MIDI file is read here for the first time, so that later stages only see readable files. Files that are
unreadable, filtered or moved are counted and reported; more unreadable files than allowed are an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coma_gen.config.schema import SplitParams
from coma_gen.core.artifact import verify_artifact, write_manifest
from coma_gen.core.errors import Fault
from coma_gen.core.io import atomic_dir
from coma_gen.corpus.filters import keep_composers
from coma_gen.corpus.read import Reading, read_all
from coma_gen.corpus.split_methods import Move, assign_splits
from coma_gen.corpus.table import CORPUS_TABLE, SPLITS, Performance, raise_faults, read_table, write_table

KIND = "split"
LISTED = 20
"""Maximum number of names of each kind that a metrics file lists; counts are always complete."""


def split_corpus(split: SplitParams, corpus: Path, destination: Path) -> dict[str, Any]:
    """Writes an artifact of kind "split" with train.csv, validation.csv and test.csv.

    Args:
        split: Method, fractions, filters and the allowed number of unreadable files.
        corpus: Artifact of kind "corpus".
        destination: Folder to write; replaced as a whole, or left unchanged on an error.

    Returns:
        Metrics: for each split performances, hours and notes; unreadable (performances, files by reason, each
        file with its reason); filtered (performances, composers); compositions_in_two_splits and the first of
        them; moved. Empty lists are omitted.

    Raises:
        UserError: The corpus was changed, a composer is unknown, too many files are unreadable, or a split
            would be empty.
    """
    manifest = verify_artifact(corpus, kind="corpus")
    rows = read_table(corpus / CORPUS_TABLE, folder=corpus)
    chosen = keep_composers(rows, split)
    readings = read_all([corpus / row.midi_filename for row in chosen])
    good = [
        replace(row, notes=reading.notes)
        for row, reading in zip(chosen, readings, strict=True)
        if not reading.reason
    ]
    unreadable = {
        row.midi_filename: reading for row, reading in zip(chosen, readings, strict=True) if reading.reason
    }
    _check_unreadable(unreadable, split.max_unreadable)
    placed, moves = assign_splits(good, split)
    with atomic_dir(destination) as building:
        for name in SPLITS:
            write_table(building / f"{name}.csv", [row for row in placed if row.split == name])
        made_from = {"corpus": manifest.digest}
        write_manifest(building, kind=KIND, made_from=made_from, settings={})  # the tables are complete
    return {
        **_summarize_sizes(placed),
        **_summarize_dropped(rows, chosen, unreadable),
        **_summarize_overlap(placed),
        **_summarize_moves(moves),
    }


def _check_unreadable(unreadable: dict[str, Reading], most: int) -> None:
    if len(unreadable) <= most:
        return
    remedy = (
        f"mend or remove it, or allow more: split.max_unreadable is {most}, {len(unreadable)} are unreadable"
    )
    raise_faults(
        [Fault(name, reading.reason, reading.got, remedy) for name, reading in sorted(unreadable.items())]
    )


def _summarize_sizes(placed: Sequence[Performance]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for name in SPLITS:
        part = sorted((row for row in placed if row.split == name), key=lambda row: row.midi_filename)
        hours = sum(row.duration for row in part) / 3600
        sizes[name] = {
            "performances": len(part),
            "hours": hours,
            "notes": sum(row.notes or 0 for row in part),
        }
    return sizes


def _summarize_dropped(
    rows: Sequence[Performance], chosen: Sequence[Performance], unreadable: dict[str, Reading]
) -> dict[str, Any]:
    reasons = Counter(reading.reason for reading in unreadable.values())
    composers = sorted({row.composer for row in rows} - {row.composer for row in chosen})
    files = [str(Fault(name, reading.reason, reading.got)) for name, reading in sorted(unreadable.items())]
    return {
        "unreadable": {
            "performances": len(unreadable),
            "reasons": dict(sorted(reasons.items())),
            **_omit_empty("files", files),
        },
        "filtered": {"performances": len(rows) - len(chosen), "composers": len(composers)},
    }


def _summarize_overlap(placed: Sequence[Performance]) -> dict[str, Any]:
    """Counts the compositions that are in more than one split, so that a model is tested on known ones."""
    where: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in placed:
        where[row.composer, row.title].add(row.split)
    shared = sorted(composition for composition, splits in where.items() if len(splits) > 1)
    names = [
        f"{composer}, {title} ({', '.join(name for name in SPLITS if name in where[composer, title])})"
        for composer, title in shared
    ]
    return {
        "compositions_in_two_splits": len(shared),
        **_omit_empty("compositions_in_two_splits_named", names[:LISTED]),
    }


def _summarize_moves(moves: Sequence[Move]) -> dict[str, Any]:
    named = [f"{move.midi_filename}: {move.source} to {move.target}" for move in moves]
    return {"moved": len(moves), **_omit_empty("moved_named", named[:LISTED])}


def _omit_empty(name: str, items: list[str]) -> dict[str, list[str]]:
    """Returns {name: items} without empty lists, which DVC cannot read among plots."""
    return {name: items} if items else {}
