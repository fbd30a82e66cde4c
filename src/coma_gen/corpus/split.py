"""The corpus in three parts that learning may not mix up: train, validation and test.

Every MIDI file is read here for the first time, so that later stages meet only files that can be read; what
cannot be read, was filtered or had to be moved is counted and reported, and more than the allowed number of
unreadable files refuses the run.
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
from coma_gen.corpus.split_methods import Move, assign
from coma_gen.corpus.table import CORPUS_TABLE, SPLITS, Performance, read_table, refuse, write_table

KIND = "split"
LISTED = 20
"""How many names a metrics file lists of each kind; the number is always whole."""


def split_corpus(split: SplitParams, corpus: Path, destination: Path) -> dict[str, Any]:
    """Divides data/corpus, as an artifact of kind "split": train.csv, validation.csv and test.csv.

    Args:
        split: method, fractions, filters and how many unreadable files to bear.
        corpus: an artifact of kind "corpus".
        destination: the folder to make; replaced as a whole, or left alone on a fault.

    Returns:
        metrics: for each split performances, hours and notes; unreadable (performances, files by reason,
            each file with its reason); filtered (performances, composers); compositions_in_two_splits and
            the first of them; moved. Lists are there where something is in them.

    Raises:
        UserError: a changed corpus, an unknown composer, too many unreadable files, or a split that would be
            empty.
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
    placed, moves = assign(good, split)
    with atomic_dir(destination) as building:
        for name in SPLITS:
            write_table(building / f"{name}.csv", [row for row in placed if row.split == name])
        made_from = {"corpus": manifest.digest}
        write_manifest(building, kind=KIND, made_from=made_from, settings={})  # the tables are all of it
    return {**_sizes(placed), **_left_out(rows, chosen, unreadable), **_overlap(placed), **_moved(moves)}


def _check_unreadable(unreadable: dict[str, Reading], most: int) -> None:
    if len(unreadable) <= most:
        return
    remedy = (
        f"mend or remove it, or allow more: split.max_unreadable is {most}, {len(unreadable)} are unreadable"
    )
    refuse([Fault(name, reading.reason, reading.got, remedy) for name, reading in sorted(unreadable.items())])


def _sizes(placed: Sequence[Performance]) -> dict[str, Any]:
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


def _left_out(
    rows: Sequence[Performance], chosen: Sequence[Performance], unreadable: dict[str, Reading]
) -> dict[str, Any]:
    reasons = Counter(reading.reason for reading in unreadable.values())
    composers = sorted({row.composer for row in rows} - {row.composer for row in chosen})
    files = [str(Fault(name, reading.reason, reading.got)) for name, reading in sorted(unreadable.items())]
    return {
        "unreadable": {
            "performances": len(unreadable),
            "reasons": dict(sorted(reasons.items())),
            **_listed("files", files),
        },
        "filtered": {"performances": len(rows) - len(chosen), "composers": len(composers)},
    }


def _overlap(placed: Sequence[Performance]) -> dict[str, Any]:
    """Compositions that a model may have been trained on and meets again in a test."""
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
        **_listed("compositions_in_two_splits_named", names[:LISTED]),
    }


def _moved(moves: Sequence[Move]) -> dict[str, Any]:
    named = [f"{move.midi_filename}: {move.source} to {move.target}" for move in moves]
    return {"moved": len(moves), **_listed("moved_named", named[:LISTED])}


def _listed(name: str, items: list[str]) -> dict[str, list[str]]:
    """A list under its name, where something is in it: DVC cannot read an empty one among plots."""
    return {name: items} if items else {}
