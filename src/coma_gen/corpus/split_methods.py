"""Methods of assigning performances to splits: by the table, by content, by composition or at random.

Where the table has no split, a performance gets a number in [0, 1) from the digest of its bytes: below the
test fraction it is test, below the sum of both fractions validation, otherwise train. A file therefore stays
in its split when other files are added, whatever its name.

    0 ├── test ──┼─ validation ─┼──────────────── train ────────────────┤ 1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from coma_gen.config.schema import SplitParams
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.core.seeding import generator
from coma_gen.corpus.table import SPLITS, Performance


@dataclass(frozen=True, slots=True)
class Move:
    """A performance that was moved to fill an empty split."""

    midi_filename: str
    source: str
    target: str


def assign_splits(rows: Sequence[Performance], split: SplitParams) -> tuple[list[Performance], list[Move]]:
    """Assigns every performance to a split by `split.method`.

    Args:
        rows: Readable performances with their SHA-256.
        split: Method, fractions and seed.

    Returns:
        The rows sorted by `midi_filename`, each with a split, and the moves that were necessary. No split is
        empty.

    Raises:
        UserError: The fractions leave nothing for train, there are fewer than three performances (or
            compositions), or the table leaves a split empty.
    """
    if split.validation_fraction + split.test_fraction >= 1:
        got = f"{split.validation_fraction} + {split.test_fraction}"
        raise UserError(
            Fault("split.validation_fraction and split.test_fraction", "must be below 1 together", got)
        )
    if len(rows) < len(SPLITS):
        raise UserError(
            Fault("the corpus", "must leave at least 3 performances for 3 splits", str(len(rows)))
        )
    ordered = sorted(rows, key=lambda row: row.midi_filename)
    if split.method == "by-composition":
        return _split_by_composition(ordered, split), []
    if split.method == "by-file":
        return _split_by_file(ordered, split), []
    return _split_by_table(ordered, split)


def hash_fraction(sha256: str) -> float:
    """Computes the number in [0, 1) of a performance from its digest."""
    return int(sha256_bytes(f"split/{sha256}".encode())[:13], 16) / 16**13


def _split_by_table(rows: Sequence[Performance], split: SplitParams) -> tuple[list[Performance], list[Move]]:
    """Uses the table's split, else the content; fills an empty split with the nearest row."""
    bounds = {
        "test": (0.0, split.test_fraction),
        "validation": (split.test_fraction, split.test_fraction + split.validation_fraction),
        "train": (split.test_fraction + split.validation_fraction, 1.0),
    }
    given = {row.midi_filename: row.split for row in rows}
    fractions = {row.midi_filename: hash_fraction(row.sha256) for row in rows if not row.split}
    for name, at in fractions.items():
        given[name] = next(target for target, (_, high) in bounds.items() if at < high or target == "train")
    moves = []
    for target in SPLITS:
        sizes = Counter(given.values())
        if sizes[target]:
            continue
        low, high = bounds[target]
        movable = [name for name in fractions if sizes[given[name]] > 1]
        if not movable:
            remedy = "make the splits anew: dvc exp run -S split.method=by-composition"
            raise UserError(
                Fault("the corpus's split column", f"must leave no split empty, '{target}' is", "", remedy)
            )
        nearest = min(movable, key=lambda name: (max(low - fractions[name], fractions[name] - high), name))
        moves.append(Move(nearest, given[nearest], target))
        given[nearest] = target
    return [replace(row, split=given[row.midi_filename]) for row in rows], moves


def _split_by_composition(rows: Sequence[Performance], split: SplitParams) -> list[Performance]:
    """Keeps each composition in one split: compositions in random order fill test, then validation."""
    sizes = Counter((row.composer, row.title) for row in rows)
    if len(sizes) < len(SPLITS):
        rule = "must leave at least 3 compositions for 3 splits"
        raise UserError(Fault("the corpus", rule, str(len(sizes)), "use split.method=official or by-file"))
    drawn = sorted(
        sizes, key=lambda work: sha256_bytes("\x00".join([str(split.seed), *work]).encode("utf-8"))
    )
    smallest_first = sorted(drawn, key=lambda work: sizes[work])
    targets = _compute_sizes(len(rows), split)
    placed: dict[tuple[str, str], str] = {}
    # test leaves at least two compositions for the other splits, validation one
    for name, reserve in (("test", 2), ("validation", 1)):
        remaining = targets[name]
        for work in drawn:
            if work not in placed and sizes[work] <= remaining and len(sizes) - len(placed) > reserve:
                placed[work] = name
                remaining -= sizes[work]
        if remaining == targets[name]:
            placed[next(work for work in smallest_first if work not in placed)] = name
    return [replace(row, split=placed.get((row.composer, row.title), "train")) for row in rows]


def _split_by_file(rows: Sequence[Performance], split: SplitParams) -> list[Performance]:
    """Assigns performances at random; recordings of one composition may be in different splits."""
    targets = _compute_sizes(len(rows), split)
    names = ["test"] * targets["test"] + ["validation"] * targets["validation"]
    names += ["train"] * (len(rows) - len(names))
    order = generator(split.seed, "split by file").permutation(len(rows)).tolist()
    given = dict(zip(order, names, strict=True))
    return [replace(row, split=given[index]) for index, row in enumerate(rows)]


def _compute_sizes(count: int, split: SplitParams) -> dict[str, int]:
    """Returns the sizes of test and validation: at least one each, leaving at least one for train."""
    test = min(max(1, round(count * split.test_fraction)), count - 2)
    validation = min(max(1, round(count * split.validation_fraction)), count - test - 1)
    return {"test": test, "validation": validation}
