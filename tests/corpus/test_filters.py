"""Composer filters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coma_gen.config.schema import SplitParams
from coma_gen.core.errors import UserError
from coma_gen.corpus.filters import keep_composers
from coma_gen.corpus.table import Performance

ROWS = [
    Performance("Bach", "one", "", "", "1.mid", 10.0),
    Performance("Bach", "one", "", "", "2.mid", 10.0),
    Performance("Liszt", "two", "", "", "3.mid", 15.0),
    Performance("Liszt", "three", "", "", "4.mid", 1.0),
    Performance("Verdi / Liszt", "four", "", "", "5.mid", 30.0),
]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, "12345"),
        ({"composers_keep": ("Bach", "Verdi / Liszt")}, "125"),
        ({"composers_drop": ("Liszt",)}, "125"),
        ({"composers_keep": ("Bach", "Liszt"), "composers_drop": ("Liszt",)}, "12"),
        ({"composers_top": 2}, "125"),
        ({"composers_top": 1, "composers_top_by": "compositions"}, "34"),
        ({"composers_top": 2, "composers_top_by": "compositions"}, "1234"),
        ({"composers_top": 9}, "12345"),
        ({"composers_top": 1, "composers_drop": ("Verdi / Liszt",)}, "12"),
    ],
)
def test_keep_drop_then_top(
    split_params: Callable[..., SplitParams], values: dict[str, object], names: str
) -> None:
    chosen = keep_composers(ROWS, split_params(**values))
    assert "".join(row.midi_filename[0] for row in chosen) == names


def test_unknown_composers_are_reported_together_with_the_nearest(
    split_params: Callable[..., SplitParams],
) -> None:
    params = split_params(composers_keep=("bach", "Bach"), composers_drop=("Lizst",))
    with pytest.raises(UserError) as caught:
        keep_composers(ROWS, params)
    assert len(caught.value.faults) == 2
    assert "split.composers_keep: must name composers as the corpus spells them, got 'bach'" in str(
        caught.value
    )
    assert "There is Liszt" in str(caught.value)


def test_nobody_left_is_a_fault(split_params: Callable[..., SplitParams]) -> None:
    with pytest.raises(UserError, match="must leave at least one composer"):
        keep_composers(ROWS, split_params(composers_drop=("Bach", "Liszt", "Verdi / Liszt")))
