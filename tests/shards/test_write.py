"""The shard stage: complete music in order, the same for any number of workers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coma_gen.core.artifact import verify_artifact, write_manifest
from coma_gen.core.errors import UserError
from coma_gen.midi.augment import scale_tempo
from coma_gen.midi.io import read_notes
from coma_gen.shards.augment import augmentations_for
from coma_gen.shards.encode import EncodedPerformance
from coma_gen.shards.read import ShardedSplit, read_shifts
from coma_gen.shards.stage import SCHEMA, write_shards, write_split
from coma_gen.tokenizer.remi import Tokenizer


@pytest.fixture(scope="module")
def written(
    folders: Any, tokenizer_folder: Path, make_params: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    destination = tmp_path_factory.mktemp("written") / "shards"
    params = make_params(tempo_factors=(1.25,))
    return destination, write_shards(params, *folders, tokenizer_folder, destination, workers=1)


def test_two_workers_write_the_same_bytes(
    folders: Any, byte_pair_folder: Path, make_params: Any, tmp_path: Path
) -> None:
    for workers in (1, 2):
        write_shards(make_params(), *folders, byte_pair_folder, tmp_path / str(workers), workers=workers)
    one, two = (verify_artifact(tmp_path / str(workers), kind="shards") for workers in (1, 2))
    assert one.files == two.files
    assert one.digest == two.digest


def test_another_tokenizer_in_the_same_folder_is_read_anew(
    folders: Any, tokenizer_folder: Path, byte_pair_folder: Path, make_params: Any, tmp_path: Path
) -> None:
    tokens = []
    for number, made in enumerate((tokenizer_folder, byte_pair_folder)):
        shutil.copytree(made, tmp_path / "tokenizer", dirs_exist_ok=True)
        destination = tmp_path / str(number)
        write_shards(make_params(), *folders, tmp_path / "tokenizer", destination, workers=1)
        tokens.append(ShardedSplit.open(destination, "test").num_tokens)
    assert tokens[1] < tokens[0], "byte pairs write the same music in fewer tokens"


def test_every_performance_is_there_whole(written: Any, folders: Any, tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_folder)
    for name, count in (("train", 64), ("validation", 2), ("test", 2)):
        split = ShardedSplit.open(written[0], name)
        assert len(split.originals) == count
        for index in split.originals:
            row, ids = split.index.iloc[int(index)], split.piece(int(index))
            notes = read_notes(folders[1] / row["midi_filename"])
            assert (ids[0], ids[-1], ids.dtype) == (tokenizer.bos_id, tokenizer.eos_id, np.uint16)
            np.testing.assert_array_equal(ids[1:-1], tokenizer.encode(notes))
            assert row["notes"] == len(notes)
            assert row["resolution_bits"] == tokenizer.common_resolution_bits(notes)
            assert (row["composer"], row["split"]) == ("A / B", name)


def test_tempo_copies_stand_beside_the_train_split_only(
    written: Any, folders: Any, tokenizer_folder: Path
) -> None:
    metrics, tokenizer = written[1], Tokenizer.load(tokenizer_folder)
    assert [metrics[name]["copies"] for name in ("train", "validation", "test")] == [64, 0, 0]
    split = ShardedSplit.open(written[0], "train")
    assert metrics["train"]["tokens"] + metrics["train"]["copy_tokens"] == split.num_tokens
    copy = split.index[split.index["copy"] == 1].index[3]
    row = split.index.loc[copy]
    faster = scale_tempo(read_notes(folders[1] / row["midi_filename"]), 1.25)
    np.testing.assert_array_equal(split.piece(copy)[1:-1], tokenizer.encode(faster))
    assert row["seconds"] == pytest.approx(split.index.loc[copy - 1]["seconds"] / 1.25)


def test_no_piece_spans_two_files(written: Any) -> None:
    split = ShardedSplit.open(written[0], "train")
    assert split.index["shard"].nunique() > 2
    ends = split.index["offset"] + split.index["tokens"]
    assert ends.groupby(split.index["shard"]).max().max() <= 1024
    assert (split.index.groupby("shard")["offset"].min() == 0).all()


def piece(size: int, **changes: Any) -> EncodedPerformance:
    row = dict.fromkeys(SCHEMA.names, 0) | {"tokens": size, **changes}
    row |= dict.fromkeys(("midi_filename", "composer", "title", "split"), "x")
    return EncodedPerformance(row, np.zeros(size, np.uint16))


def test_a_long_piece_has_a_file_of_its_own(tmp_path: Path) -> None:
    pieces = [piece(size) for size in (10, 50, 10, 5, 20)]
    write_split(tmp_path, "train", pieces, tokens_per_file=20)
    files = sorted((tmp_path / "train").glob("*.npy"))
    assert [len(np.load(file)) for file in files] == [10, 50, 15, 20]


def test_the_index_is_written_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coma_gen.shards.stage.ROWS_AT_ONCE", 4)
    pieces = [piece(3 + index % 5, copy=index % 3, notes=index) for index in range(11)]
    counts = write_split(tmp_path, "test", iter(pieces), tokens_per_file=10)
    index = pd.read_parquet(tmp_path / "test" / "index.parquet")
    assert index["tokens"].tolist() == [len(each.ids) for each in pieces]
    assert index["notes"].tolist() == list(range(11))
    assert (index.groupby("shard")["tokens"].sum() <= 10).all()
    played = pieces[::3]
    tokens, notes = sum(len(each.ids) for each in played), sum(each.row["notes"] for each in played)
    copied = sum(len(each.ids) for each in pieces) - tokens
    assert counts == {"pieces": 4, "tokens": tokens, "notes": notes, "copies": 7, "copy_tokens": copied}


def test_shift_tables_begin_with_the_identity(written: Any, tokenizer_folder: Path) -> None:
    tables, tokenizer = read_shifts(written[0]), Tokenizer.load(tokenizer_folder)
    assert tables.shape == (9, tokenizer.vocab_size)
    assert tables[0].tolist() == list(range(tokenizer.vocab_size))
    assert written[1]["shift_tables"] == 9
    assert len({table.tobytes() for table in tables}) == 9


def test_byte_pairs_get_copies_instead_of_tables(
    folders: Any, byte_pair_folder: Path, make_params: Any, tmp_path: Path
) -> None:
    params = make_params(transpose=2, tempo_factors=(0.5,))
    metrics = write_shards(params, *folders, byte_pair_folder, tmp_path / "shards", workers=1)
    tokenizer, split = Tokenizer.load(byte_pair_folder), ShardedSplit.open(tmp_path / "shards", "train")
    assert read_shifts(tmp_path / "shards").shape == (1, tokenizer.vocab_size)
    assert metrics["train"]["pieces"] == 64
    assert metrics["train"]["copies"] == 64 * 9
    first = split.index.iloc[:10]
    assert first["copy"].tolist() == list(range(10))
    assert first["semitones"].tolist() == [0, -2, -1, 1, 2, -2, -1, 0, 1, 2]
    assert first["tempo_factor"].tolist() == [1.0] * 5 + [0.5] * 5
    assert set(split.index["velocity_bins"]) == {-1, 0, 1}
    higher = tokenizer.decode(split.piece(4)).pitch.astype(int) - tokenizer.decode(split.piece(0)).pitch
    assert set(higher[higher > 0]) == {2}


def test_the_loudness_of_a_copy_depends_on_its_file_alone(make_params: Any) -> None:
    params = make_params(transpose=3, velocity_shift=8)
    assert augmentations_for(params, "a.mid", byte_pairs=True) == augmentations_for(
        params, "a.mid", byte_pairs=True
    )
    assert augmentations_for(params, "a.mid", byte_pairs=True) != augmentations_for(
        params, "b.mid", byte_pairs=True
    )


def test_a_split_of_another_corpus_is_refused(
    folders: Any, tokenizer_folder: Path, make_params: Any, tmp_path: Path
) -> None:
    (tmp_path / "corpus").mkdir()
    write_manifest(tmp_path / "corpus", kind="corpus", made_from={}, settings={})
    with pytest.raises(UserError, match="split was made from"):
        write_shards(make_params(), folders[0], tmp_path / "corpus", tokenizer_folder, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
