"""Condition bins of training windows: computed after augmentation, partly dropped, by position alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_music import PAD, bar, piece, vocabulary

from coma_gen.core.artifact import Manifest
from coma_gen.shards.conditions import BIN_DROPOUT, WINDOW_DROPOUT, WindowConditions
from coma_gen.shards.read import ShardedSplit
from coma_gen.shards.windows import draw_windows
from coma_gen.tokenizer.conditions import ConditionTables

NAMES = ("density", "loudness", "register", "polyphony")
TOLD = WindowConditions(ConditionTables.from_vocabulary(vocabulary(), NAMES))
LENGTH = 80


@pytest.fixture
def split(tmp_path: Path) -> ShardedSplit:
    (tmp_path / "train").mkdir()
    pieces = [piece(*[bar(9)] * 12), piece(*[bar(3, velocity=90, positions=4)] * 30)]
    np.save(tmp_path / "train" / "tokens-00000.npy", np.concatenate(pieces))
    lengths = [len(each) for each in pieces]
    index = pd.DataFrame({"shard": 0, "offset": [0, lengths[0]], "tokens": lengths, "copy": 0})
    return ShardedSplit(tmp_path, "train", Manifest("shards", {}, {}, {}), index)


def windows(split: ShardedSplit, batch: int, **changes: object) -> tuple[np.ndarray, np.ndarray]:
    settings = {"seed": 0, "step": 1, "seq_len": LENGTH, "shifts": None, "pad_id": PAD} | changes
    return draw_windows(split, batch=batch, **settings)  # type: ignore[arg-type]


def test_a_row_is_told_the_same_whoever_draws_it(split: ShardedSplit) -> None:
    drawn = windows(split, 8)
    together = TOLD.draw(*drawn, seed=0, step=1)
    assert together.shape == (8, LENGTH, 4) and together.dtype == np.int64
    for row in range(8):
        part = slice(row, row + 1)
        alone = TOLD.draw(drawn[0][part], drawn[1][part], seed=0, step=1, first=row)
        np.testing.assert_array_equal(alone[0], together[row])
    for other in ({"seed": 1, "step": 1}, {"seed": 0, "step": 2}):
        assert not np.array_equal(TOLD.draw(*drawn, **other), together)


def test_what_is_told_is_true_and_the_rest_is_withheld(split: ShardedSplit) -> None:
    drawn = windows(split, 400)
    told = TOLD.draw(*drawn, seed=0, step=1)
    full = np.concatenate([drawn[0][:, :1], np.where(drawn[1] < 0, PAD, drawn[1])], axis=1)
    true = np.stack([TOLD.tables.compute_bins(window)[:-1] for window in full])
    assert ((told == true) | (told == 0)).all()
    known = (true > 0).any((1, 2))
    nothing = (told == 0).all((1, 2))[known].mean()
    assert WINDOW_DROPOUT <= nothing < WINDOW_DROPOUT + 0.06
    some = ~(told == 0).all((1, 2))
    assert (told == 0)[some][true[some] > 0].mean() == pytest.approx(BIN_DROPOUT, abs=0.04)


def test_a_window_that_was_moved_is_told_what_it_has_become(split: ShardedSplit) -> None:
    louder = np.stack([np.arange(12), np.arange(12)]).astype(np.uint16)
    louder[:, 8] = 9
    plain, moved = windows(split, 60), windows(split, 60, shifts=louder)
    np.testing.assert_array_equal(louder[0][plain[0]], moved[0])
    before, after = (TOLD.draw(*each, seed=0, step=1) for each in (plain, moved))
    np.testing.assert_array_equal(before[..., [0, 2, 3]], after[..., [0, 2, 3]])
    assert set(before[..., 1].flat) == {0, 4, 14} and set(after[..., 1].flat) == {0, 14}


def test_a_model_without_conditions_is_told_nothing(tmp_path: Path) -> None:
    vocabulary().save(tmp_path)
    assert WindowConditions.load(tmp_path, ()) is None
    loaded = WindowConditions.load(tmp_path, ("density",))
    assert loaded is not None and loaded.tables.names == ("density",)
