"""Split methods: by table, by content, by composition, at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coma_gen.config.schema import SplitParams
from coma_gen.core.errors import UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.corpus.split_methods import assign_splits, hash_fraction
from coma_gen.corpus.table import SPLITS, Performance

Params = Callable[..., SplitParams]
quiet = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def music(number: int, *, title: str = "", split: str = "", name: str = "") -> Performance:
    digest = sha256_bytes(str(number).encode())
    return Performance("C", title or f"T{number}", split, "", name or f"{number:04d}.mid", 1.0, digest, 1)


def splits_of(rows: list[Performance]) -> dict[str, str]:
    return {row.sha256: row.split for row in rows}


def test_the_tables_split_is_used(split_params: Params) -> None:
    rows = [music(i, split=split) for i, split in enumerate(["test", "train", "train", "validation"])]
    placed, moves = assign_splits(rows, split_params())
    assert placed == rows
    assert moves == []


def test_without_one_the_content_decides(split_params: Params) -> None:
    rows = [music(i) for i in range(2000)]
    placed, moves = assign_splits(rows, split_params(test_fraction=0.2, validation_fraction=0.1))
    for row in placed:
        at = hash_fraction(row.sha256)
        assert row.split == ("test" if at < 0.2 else "validation" if at < 0.3 else "train")
    counts = Counter(row.split for row in placed)
    assert abs(counts["test"] - 400) < 60
    assert abs(counts["validation"] - 200) < 45
    assert moves == []


@quiet
@given(
    st.sets(st.integers(0, 10_000), min_size=60, max_size=90),
    st.sets(st.integers(10_001, 20_000), max_size=40),
)
def test_a_file_stays_where_it_is_when_others_come(
    split_params: Params, numbers: set[int], more: set[int]
) -> None:
    params = split_params(test_fraction=0.3, validation_fraction=0.3)
    few, moves = assign_splits([music(number) for number in numbers], params)
    many, _ = assign_splits(
        [music(number, name=f"renamed {number}.mid") for number in numbers | more], params
    )
    if not moves:
        after = splits_of(many)
        assert all(after[digest] == split for digest, split in splits_of(few).items())


@quiet
@given(st.sets(st.integers(0, 10_000), min_size=3, max_size=12), st.sampled_from([0.01, 0.1, 0.45]))
def test_no_split_is_empty_and_the_moved_are_reported(
    split_params: Params, numbers: set[int], fraction: float
) -> None:
    params = split_params(test_fraction=fraction, validation_fraction=fraction)
    placed, moves = assign_splits([music(number) for number in numbers], params)
    assert {row.split for row in placed} == set(SPLITS)
    assert len(moves) <= 2
    for move in moves:
        assert next(row.split for row in placed if row.midi_filename == move.midi_filename) == move.target


def test_the_nearest_is_moved(split_params: Params) -> None:
    rows = sorted((music(i) for i in range(40)), key=lambda row: hash_fraction(row.sha256))[-3:]
    placed, moves = assign_splits(rows, split_params())
    assert [(move.source, move.target) for move in moves] == [("train", "validation"), ("train", "test")]
    by_fraction = sorted(placed, key=lambda row: hash_fraction(row.sha256))
    assert sorted(row.split for row in by_fraction[:2]) == ["test", "validation"]
    assert by_fraction[2].split == "train"


def test_rows_with_a_split_are_never_moved(split_params: Params) -> None:
    rows = [music(0, split="train"), music(1, split="train"), music(2, split="validation")]
    with pytest.raises(UserError, match=r"'test' is.*split\.method=by-composition"):
        assign_splits(rows, split_params())
    placed, moves = assign_splits([*rows, music(3), music(4)], split_params())
    assert all(move.midi_filename in ("0003.mid", "0004.mid") for move in moves)
    assert [row.split for row in placed[:3]] == ["train", "train", "validation"]


@quiet
@given(
    st.lists(st.integers(0, 8), min_size=3, max_size=60).filter(lambda titles: len(set(titles)) > 2),
    st.integers(0, 5),
    st.sampled_from([(0.1, 0.1), (0.4, 0.4), (0.02, 0.9)]),
)
def test_no_composition_is_in_two_splits(
    split_params: Params, titles: list[int], seed: int, fractions: tuple[float, float]
) -> None:
    rows = [music(i, title=f"T{title}", split="train") for i, title in enumerate(titles)]
    params = split_params(
        "by-composition", seed=seed, test_fraction=fractions[0], validation_fraction=fractions[1]
    )
    placed, _ = assign_splits(rows, params)
    assert {row.split for row in placed} == set(SPLITS)
    assert len({(row.title, row.split) for row in placed}) == len(set(titles))
    assert assign_splits(rows[::-1], params)[0] == placed


def test_by_composition_meets_the_fractions(split_params: Params) -> None:
    rows = [music(i, title=f"T{i // 2}") for i in range(200)]
    placed, _ = assign_splits(rows, split_params("by-composition", test_fraction=0.2))
    assert Counter(row.split for row in placed) == {"train": 140, "validation": 20, "test": 40}
    other, _ = assign_splits(rows, split_params("by-composition", test_fraction=0.2, seed=1))
    assert placed != other


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 1, 1)), (20, (16, 2, 2)), (100, (80, 10, 10))])
def test_by_file_draws_by_seed(split_params: Params, count: int, expected: tuple[int, int, int]) -> None:
    rows = [music(i, title="the same", split="train") for i in range(count)]
    placed, _ = assign_splits(rows, split_params("by-file"))
    counts = Counter(row.split for row in placed)
    assert tuple(counts[name] for name in SPLITS) == expected
    assert assign_splits(rows[::-1], split_params("by-file"))[0] == placed
    if count > 3:
        assert assign_splits(rows, split_params("by-file", seed=1))[0] != placed


def test_too_little_music_or_too_large_fractions_are_faults(split_params: Params) -> None:
    with pytest.raises(UserError, match="at least 3 performances"):
        assign_splits([music(0), music(1)], split_params())
    with pytest.raises(UserError, match="at least 3 compositions"):
        assign_splits([music(i, title="T") for i in range(5)], split_params("by-composition"))
    with pytest.raises(UserError, match="below 1 together"):
        assign_splits([music(i) for i in range(5)], split_params(test_fraction=0.5, validation_fraction=0.5))
