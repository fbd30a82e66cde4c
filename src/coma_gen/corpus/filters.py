"""Which composers take part."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from coma_gen.config.schema import SplitParams
from coma_gen.core.errors import Fault, UserError
from coma_gen.corpus.table import Performance, plain_text, refuse


def keep_composers(rows: Sequence[Performance], split: SplitParams) -> list[Performance]:
    """The performances that the filters leave: first those to keep, then those to drop, then the top k.

    Raises:
        UserError: a composer whom the corpus does not know (with the nearest names), or nobody left.
    """
    known = {row.composer for row in rows}
    wanted, unwanted = (
        [plain_text(name) for name in names] for names in (split.composers_keep, split.composers_drop)
    )
    refuse(
        [
            _unknown(f"split.{key}", name, known)
            for key, names in (
                ("composers_keep", wanted),
                ("composers_drop", unwanted),
            )
            for name in names
            if name not in known
        ]
    )
    chosen = [row for row in rows if (not wanted or row.composer in wanted) and row.composer not in unwanted]
    if split.composers_top is not None:
        best = _ranking(chosen, split.composers_top_by)[: split.composers_top]
        chosen = [row for row in chosen if row.composer in best]
    if not chosen:
        rule = "must leave somebody"
        raise UserError(Fault("split.composers_keep and split.composers_drop", rule, "no performance left"))
    return chosen


def _ranking(rows: Sequence[Performance], by: str) -> list[str]:
    """Composers by hours or number of compositions, most first; equals by name."""
    amounts: dict[str, float] = {}
    for composer in {row.composer for row in rows}:
        own = [row for row in rows if row.composer == composer]
        hours = sum(row.duration for row in sorted(own, key=lambda row: row.midi_filename))
        amounts[composer] = hours if by == "hours" else len({row.title for row in own})
    return sorted(amounts, key=lambda composer: (-amounts[composer], composer))


def _unknown(key: str, name: str, known: set[str]) -> Fault:
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    choice = near or sorted(known)[:10]
    return Fault(
        key, "must name composers as the corpus spells them", repr(name), f"there is {'; '.join(choice)}"
    )
