"""Training windows: a function of their position, drawn from everywhere, padded and shifted as specified."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coma_gen.core.artifact import Manifest
from coma_gen.core.errors import UserError
from coma_gen.shards.read import ShardedSplit, read_shifts
from coma_gen.shards.stage import write_shards
from coma_gen.shards.windows import IGNORE, draw_windows

PAD = 0


def split_of(folder: Path, *sizes: int) -> ShardedSplit:
    """Pieces of the given lengths in one file; piece k counts up from 100 k."""
    (folder / "train").mkdir()
    pieces = [np.arange(size, dtype=np.uint16) + 100 * index for index, size in enumerate(sizes, start=1)]
    np.save(folder / "train" / "tokens-00000.npy", np.concatenate([np.zeros(0, np.uint16), *pieces]))
    offsets = np.cumsum([0, *sizes])[: len(sizes)]
    index = pd.DataFrame({"shard": 0, "offset": offsets, "tokens": list(sizes), "copy": 0})
    return ShardedSplit(folder, "train", Manifest("shards", {}, {}, {}), index)


def draw(split: ShardedSplit, **changes: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    settings = {"seed": 0, "step": 0, "batch": 4, "seq_len": 8, "shifts": None, "pad_id": PAD}
    return draw_windows(split, **{**settings, **changes})


def test_a_window_depends_on_its_index_alone(tmp_path: Path) -> None:
    split = split_of(tmp_path, 50, 90, 70)
    inputs, targets = draw(split, batch=6, step=3)
    for row in range(6):
        alone = draw(split, batch=1, step=3, first=row)
        np.testing.assert_array_equal(alone[0][0], inputs[row])
        np.testing.assert_array_equal(alone[1][0], targets[row])
    assert not np.array_equal(inputs, draw(split, batch=6, step=4)[0])
    assert not np.array_equal(inputs, draw(split, batch=6, step=3, seed=1)[0])


def test_targets_are_the_next_tokens(tmp_path: Path) -> None:
    inputs, targets = draw(split_of(tmp_path, 50, 90), batch=16)
    assert inputs.shape == targets.shape == (16, 8)
    assert inputs.dtype == targets.dtype == np.int64
    np.testing.assert_array_equal(targets, inputs + 1)


def test_no_token_is_a_target_less_often_than_the_others(tmp_path: Path) -> None:
    split = split_of(tmp_path, 40)
    counts: Counter[int] = Counter()
    for step in range(400):
        targets = draw(split, batch=16, step=step)[1]
        assert (targets != IGNORE).all(), "a piece that is long enough fills every window"
        counts.update(targets.ravel().tolist())
    assert sorted(counts) == list(range(101, 140))
    middle = sum(counts[token] for token in range(110, 130)) / 20
    # 46 offsets for 39 targets; each target is in 8 of them, those near the ends in more
    assert abs(middle - 400 * 16 * 8 / 46) < 0.02 * middle
    assert all(count > 0.9 * middle for count in counts.values())
    assert counts[101] > middle and counts[139] > middle


def test_short_pieces_are_padded_on_the_right(tmp_path: Path) -> None:
    inputs, targets = draw(split_of(tmp_path, 4), batch=1)
    assert inputs[0].tolist() == [100, 101, 102, PAD, PAD, PAD, PAD, PAD]
    assert targets[0].tolist() == [101, 102, 103, *[IGNORE] * 5]


@pytest.mark.parametrize("size", [8, 9, 10])
def test_pieces_about_as_long_as_a_window(tmp_path: Path, size: int) -> None:
    inputs, targets = draw(split_of(tmp_path, size), batch=8)
    assert (targets != IGNORE).sum() == 8 * min(8, size - 1)
    assert set(inputs[:, 0].tolist()) == set(range(100, 100 + max(1, size - 8)))


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shards/train"):
        draw(split_of(tmp_path))


def test_shifts_that_leave_the_range_are_drawn_again(tmp_path: Path) -> None:
    split = split_of(tmp_path, 9)
    ids = np.arange(200, dtype=np.uint16)
    lost = np.where(ids == 105, 65535, ids + 10).astype(np.uint16)
    shifts = np.stack([ids, (ids + 1).astype(np.uint16), lost])
    starts = Counter(draw(split, batch=200, shifts=shifts)[0][:, 0].tolist())
    assert set(starts) == {100, 101}
    assert abs(starts[100] - 100) < 40
    assert draw(split, batch=2, shifts=shifts[[2, 2]])[0][:, 0].tolist() == [100, 100]


def test_windows_of_written_shards(
    folders: Any, tokenizer_folder: Path, make_params: Any, tmp_path: Path
) -> None:
    write_shards(make_params(), *folders, tokenizer_folder, tmp_path / "shards", workers=1)
    split = ShardedSplit.open(tmp_path / "shards", "train")
    assert split.settings == {"vocab_size": len(read_shifts(tmp_path / "shards")[0]), **_specials()}
    inputs, targets = draw(split, shifts=read_shifts(tmp_path / "shards"), batch=64, seq_len=32)
    assert inputs.min() >= 0 and inputs.max() < split.settings["vocab_size"]
    assert set(np.unique(targets[targets < 0])) <= {IGNORE}


def test_what_training_reads_imports_no_tokenizer() -> None:
    code = "import sys, coma_gen.shards.read, coma_gen.shards.windows as _; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert not loaded & {"miditok", "symusic", "tokenizers", "mlflow", "torch"}


def test_other_splits_and_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be one of"):
        ShardedSplit.open(tmp_path, "eval")
    with pytest.raises(UserError, match="shards"):
        ShardedSplit.open(tmp_path, "train")


def _specials() -> dict[str, int]:
    return {"pad_id": 0, "bos_id": 1, "eos_id": 2}
