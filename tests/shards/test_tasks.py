"""Sharding in parts: the same bytes for any division and order."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coma_gen.core.artifact import verify_artifact, write_manifest
from coma_gen.core.errors import UserError
from coma_gen.shards.encode import ShardInputs
from coma_gen.shards.stage import write_shards
from coma_gen.shards.tasks import Parts

Divide = Callable[..., Parts]


@pytest.fixture(scope="module")
def source(folders: Any, byte_pair_folder: Path, make_params: Any) -> ShardInputs:
    return ShardInputs.of(make_params(), *folders, byte_pair_folder)


@pytest.fixture(scope="module")
def whole(source: ShardInputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Digest and metrics of what the stage writes: several files a split, and copies."""
    folder = tmp_path_factory.mktemp("whole") / "shards"
    metrics = write_shards(source.shard, source.split, source.corpus, source.tokenizer, folder, workers=1)
    return verify_artifact(folder, kind="shards").digest, metrics


@pytest.fixture
def divide(source: ShardInputs, tmp_path: Path) -> Divide:
    return lambda size=None: Parts.divide(source, tmp_path / "parts", files_per_task=size)


@pytest.mark.parametrize(("size", "tasks"), [(5, 15), (64, 3), (1000, 3)])
def test_any_division_gives_the_same_bytes(
    size: int, tasks: int, divide: Divide, whole: Any, tmp_path: Path
) -> None:
    parts = divide(size)
    assert parts.unfinished() == list(range(tasks)) == list(range(len(parts)))
    for number in reversed(range(tasks)):
        parts.write(number)
    assert parts.unfinished() == []
    assert parts.join(tmp_path / "shards") == whole[1]
    assert verify_artifact(tmp_path / "shards", kind="shards").digest == whole[0]


def test_what_was_begun_is_gone_on_with(divide: Divide) -> None:
    begun = divide(30)
    begun.write(1)
    assert divide() == divide(30) == begun
    assert divide().unfinished() == [0, 2, 3, 4]
    with pytest.raises(UserError, match="must be 30, as for the existing parts in"):
        divide(31)


def test_tables_of_a_killed_division_are_written_again(divide: Divide) -> None:
    begun = divide(30)
    (begun.folder / "plan.json").unlink()
    (begun.folder / "tables" / "00003.csv").unlink()
    assert divide(30) == begun
    begun.write(3)


@pytest.mark.parametrize("damage", ["tokens-00000.npy", "index.parquet"])
def test_a_torn_part_counts_as_missing(damage: str, divide: Divide, tmp_path: Path) -> None:
    parts = divide(64)
    for number in range(3):
        parts.write(number)
    file = parts.folder / "parts" / "00001" / "validation" / damage
    file.write_bytes(file.read_bytes()[:-1])
    assert parts.unfinished() == [1]
    with pytest.raises(UserError, match="must hold all 3 parts, got 2, the first missing is 00001"):
        parts.join(tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
    parts.write(1)
    parts.join(tmp_path / "shards")


def test_another_file_is_refused_and_leaves_no_part(
    folders: Any, tokenizer_folder: Path, make_params: Any, tmp_path: Path
) -> None:
    corpus, split = tmp_path / "corpus", tmp_path / "split"
    shutil.copytree(folders[1], corpus)
    shutil.copytree(folders[0], split)
    table = split / "test.csv"
    table.write_text(table.read_text().replace(",,", f",{'0' * 64},"))
    made_from = {"corpus": verify_artifact(corpus, kind="corpus").digest}
    write_manifest(split, kind="split", made_from=made_from, settings={})
    parts = Parts.divide(ShardInputs.of(make_params(), split, corpus, tokenizer_folder), tmp_path / "parts")
    with pytest.raises(UserError, match=r"066\.mid: must be the file that the split was made from"):
        parts.write(2)
    assert list((parts.folder / "parts").iterdir()) == []


def test_another_tokenizer_is_refused(
    folders: Any, tokenizer_folder: Path, byte_pair_folder: Path, make_params: Any, tmp_path: Path
) -> None:
    shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    source = ShardInputs.of(make_params(), *folders, tmp_path / "tokenizer")
    parts = Parts.divide(source, tmp_path / "parts")
    shutil.copytree(byte_pair_folder, tmp_path / "tokenizer", dirs_exist_ok=True)
    with pytest.raises(UserError, match="must be the tokenizer that this work began with"):
        parts.write(1)


def test_strangers_are_told_apart_all_at_once(
    folders: Any, byte_pair_folder: Path, make_params: Any, tmp_path: Path
) -> None:
    other = {"split": "0" * 64, "corpus": "0" * 64}
    for name, folder in (("tokenizer", byte_pair_folder), ("split", folders[0])):
        shutil.copytree(folder, tmp_path / name)
        write_manifest(tmp_path / name, kind=name, made_from=other, settings={})
    with pytest.raises(UserError) as caught:
        ShardInputs.of(make_params(), tmp_path / "split", folders[1], tmp_path / "tokenizer")
    assert len(caught.value.faults) == 2
