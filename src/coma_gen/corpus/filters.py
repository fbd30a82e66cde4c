"""Filters the performances by composer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from coma_gen.config.schema import SplitParams
from coma_gen.core.errors import Fault, UserError
from coma_gen.corpus.table import Performance, plain_text, raise_faults


def keep_composers(rows: Sequence[Performance], split: SplitParams) -> list[Performance]:
    """Applies the filters in order: composers to keep, composers to drop, top k.

    Raises:
        UserError: A composer is not in the corpus (with the closest names), or no performance is left.
    """
    known = {row.composer for row in rows}
    keep, drop = (
        [plain_text(name) for name in names] for names in (split.composers_keep, split.composers_drop)
    )
    raise_faults(
        [
            _build_composer_fault(f"split.{key}", name, known)
            for key, names in (
                ("composers_keep", keep),
                ("composers_drop", drop),
            )
            for name in names
            if name not in known
        ]
    )
    chosen = [row for row in rows if (not keep or row.composer in keep) and row.composer not in drop]
    if split.composers_top is not None:
        best = _rank_composers(chosen, split.composers_top_by)[: split.composers_top]
        chosen = [row for row in chosen if row.composer in best]
    if not chosen:
        rule = "must leave at least one composer"
        raise UserError(Fault("split.composers_keep and split.composers_drop", rule, "no performance left"))
    return chosen


def _rank_composers(rows: Sequence[Performance], by: str) -> list[str]:
    """Sorts composers by hours or number of compositions, descending; ties by name."""
    amounts: dict[str, float] = {}
    for composer in {row.composer for row in rows}:
        own = [row for row in rows if row.composer == composer]
        hours = sum(row.duration for row in sorted(own, key=lambda row: row.midi_filename))
        amounts[composer] = hours if by == "hours" else len({row.title for row in own})
    return sorted(amounts, key=lambda composer: (-amounts[composer], composer))


def _build_composer_fault(key: str, name: str, known: set[str]) -> Fault:
    """Builds the fault of a composer who is not in the corpus."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    choice = near or sorted(known)[:10]
    return Fault(
        key, "must name composers as the corpus spells them", repr(name), f"there is {'; '.join(choice)}"
    )
