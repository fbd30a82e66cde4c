"""Reading rows of a file while it is being written."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coma_gen.core.errors import UserError
from coma_gen.tracking.csv_tail import Row, is_same, read_rows


def written(folder: Path, text: str) -> Path:
    path = folder / "curve.csv"
    path.write_text(text)
    return path


def test_a_file_that_is_not_there_yet_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.csv") == []
    assert read_rows(written(tmp_path, "")) == []
    assert read_rows(written(tmp_path, "step,lo")) == []


def test_empty_cells_are_left_out_and_a_half_written_line_waits(tmp_path: Path) -> None:
    path = written(tmp_path, "step,train_loss,validation_nll\n10,4.5,\n20,4.25,4.75\n30,4.1")
    assert read_rows(path) == [
        Row(10, {"train_loss": 4.5}),
        Row(20, {"train_loss": 4.25, "validation_nll": 4.75}),
    ]


def test_every_cut_of_a_file_gives_its_whole_lines(tmp_path: Path) -> None:
    text = "step,train_loss\n10,4.5\n20,4.25\n"
    rows = [Row(10, {"train_loss": 4.5}), Row(20, {"train_loss": 4.25})]
    for end in range(len(text) + 1):
        assert read_rows(written(tmp_path, text[:end])) == rows[: max(text[:end].count("\n") - 1, 0)]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("loss\n4\n", ":1"),
        ("step,loss\n1\n", ":2"),
        ("step,loss\n1,2\n2,x\n", ":3"),
        ("step,loss\n1.5,2\n", ":2"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(UserError) as caught:
        read_rows(written(tmp_path, text))
    assert caught.value.faults[0].where.endswith(where)


@given(st.floats(), st.floats())
def test_same_is_what_a_store_keeps_alike(one: float, other: float) -> None:
    assert is_same(one, one)
    assert is_same(one, other) == is_same(other, one)
    if math.isfinite(one) and math.isfinite(other):
        assert is_same(one, other) == (one == other)


def test_a_store_keeps_infinity_as_the_largest_float() -> None:
    assert is_same(math.inf, 1.7976931348623157e308)
    assert not is_same(math.nan, 0.0)
