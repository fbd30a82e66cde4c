"""Files are written completely or not at all."""

from __future__ import annotations

import json
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coma_gen.core.errors import UserError
from coma_gen.core.io import (
    FORMER,
    atomic_dir,
    read_json,
    rounded,
    sha256_bytes,
    sha256_file,
    without_links,
    write_atomic,
    write_json,
)


def test_written_file_holds_the_content_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "a.txt", "one")
    write_atomic(tmp_path / "deep" / "a.txt", b"two")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_failed_write_keeps_the_former_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "after")
    assert path.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_it_is_on_the_disk_before_it_has_its_name_and_so_is_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}

    def noted(name: str, *arguments: Any) -> Any:
        is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
        done.append("fsync of the folder" if is_folder else name)
        return real[name](*arguments)

    for name in real:
        monkeypatch.setattr(os, name, partial(noted, name))
    write_atomic(tmp_path / "a.txt", "one")
    assert done == ["fsync", "replace", "fsync of the folder"]
    done.clear()
    with atomic_dir(tmp_path / "out"):
        pass
    assert done == ["replace", "fsync of the folder"]


def test_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_dir(target) as folder:
        (folder / "old").write_text("1")
    with pytest.raises(RuntimeError), atomic_dir(target) as folder:
        (folder / "half").write_text("2")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["old"]
    with atomic_dir(target) as folder:
        (folder / "new").write_text("3")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_had_moved_aside_comes_back(tmp_path: Path) -> None:
    (tmp_path / f".out.x{FORMER}").mkdir()
    (tmp_path / f".out.x{FORMER}" / "old").write_text("1")
    (tmp_path / ".out.y.partial").mkdir()
    with pytest.raises(RuntimeError), atomic_dir(tmp_path / "out"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "old").read_text() == "1"


def test_permissions_follow_the_umask_not_the_temporary_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding_keeps_six_significant_digits(value: float) -> None:
    rounded_once = rounded({"a": [value]})["a"][0]
    assert rounded_once == float(f"{value:.6g}")
    assert rounded(rounded_once) == rounded_once


def test_json_refuses_what_it_cannot_say_and_keeps_integers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()
    write_json(tmp_path / "a.json", {"n": 123456789, "x": 0.12345678, "on": True, "t": (1, 2)})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "n": 123456789,
        "x": 0.123457,
        "on": True,
        "t": [1, 2],
    }


def test_bad_json_is_a_fault_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("a.json", "none.json", "latin.json", "folder.json", "pipe.json"):
        with pytest.raises(UserError, match=name):
            read_json(tmp_path / name)


def test_json_nested_deeper_than_the_stack_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(text: str) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    (tmp_path / "deep.json").write_text("[[]]")
    assert read_json(tmp_path / "deep.json") == [[]]
    with monkeypatch.context() as patch:
        patch.setattr(json, "loads", overflow)
        with pytest.raises(UserError, match=r"deep\.json: must be JSON, got maximum recursion depth"):
            read_json(tmp_path / "deep.json")


def test_digests_of_bytes_and_file_agree(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "a") == sha256_bytes(b"abc") == expected


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "music [1]", "a*b"])
def test_any_name_that_systems_hold(name: str, tmp_path: Path) -> None:
    """Also what a process that was killed left beside it goes."""
    for _ in range(2):
        with atomic_dir(tmp_path / name) as building:
            write_atomic(building / name, "whole")
        left = building.with_name(building.name)
        left.mkdir()
    with atomic_dir(tmp_path / name) as building:
        write_atomic(building / name, "whole again")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / name).read_text() == "whole again"


def test_links_are_followed_for_those_who_take_none(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "12").write_text("content")
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    with without_links(folder) as plain:
        assert plain == folder
    (folder / "deep" / "weights").symlink_to(tmp_path / "cache" / "12")
    for path, inner in ((folder, "deep/weights"), (folder / "deep" / "weights", "")):
        with without_links(path) as plain:
            assert plain.name == path.name and not plain.is_symlink()
            assert (plain / inner).read_text() == "content" and not (plain / inner).is_symlink()
        assert not plain.exists()
