"""Files are complete or absent: when any system call fails, and after kill -9 at any call."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coma_gen.core.artifact import write_manifest
from coma_gen.core.errors import UserError
from coma_gen.core.io import atomic_dir, sha256_file, write_atomic
from coma_gen.corpus import split as splitting
from coma_gen.corpus.build import build_corpus
from coma_gen.corpus.read import Reading
from coma_gen.corpus.split import split_corpus
from faults.broken_disk import broken_disk, full_at, is_killed
from faults.budgets import BOTH_FORMS, Form
from faults.settings import DOWNLOAD, SPLIT

Tally = Callable[[str, str, int], None]
Work = Callable[[Path], None]
"""Writes `folder`/out anew."""


def atomic_file(folder: Path) -> None:
    write_atomic(folder / "out", "new" * 5000)


def sealed_folder(folder: Path) -> None:
    with atomic_dir(folder / "out") as building:
        for name in ("a", "deep/b"):
            (building / name).parent.mkdir(exist_ok=True)
            (building / name).write_text("new")
        write_manifest(building, kind="corpus", made_from={}, settings={})


def corpus(folder: Path) -> None:
    build_corpus(DOWNLOAD, folder / "out", cache=folder, own_folder=folder)


def split(folder: Path) -> None:
    split_corpus(SPLIT, folder.parent / "corpus", folder / "out")


def state(path: Path) -> Any:
    """What a file or folder holds; None where it is not there."""
    if path.is_dir():
        names = sorted(each for each in path.rglob("*") if each.is_file())
        return {each.relative_to(path).as_posix(): sha256_file(each) for each in names}
    return path.read_bytes() if path.exists() else None


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "out")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write `out` in, beside a corpus; the split trusts that its files can be read."""
    build_corpus(DOWNLOAD, tmp_path / "corpus", cache=tmp_path, own_folder=tmp_path)
    monkeypatch.setattr(splitting, "read_all", lambda paths: [Reading(7, 5.0)] * len(paths))
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def old_one(work: Work, folder: Path) -> None:
    """Something that stood there before, and is whole."""
    if work is atomic_file:
        (folder / "out").write_text("old")
        return
    (folder / "out").mkdir()
    (folder / "out" / "old").write_text("old")
    kind = "split" if work is split else "corpus"
    write_manifest(folder / "out", kind=kind, made_from={}, settings={})


def afresh(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("work", [atomic_file, sealed_folder, corpus, split])
@pytest.mark.parametrize("is_there", [False, True], ids=["fresh", "again"])
class TestEveryCall:
    """Of a writer, in turn."""

    def test_a_full_disk(self, work: Work, is_there: bool, folder: Path, tally: Tally) -> None:
        work(folder)
        new, number, tried = state(folder / "out"), 1, 0
        while True:
            afresh(folder)
            if is_there:
                old_one(work, folder)
            old = state(folder / "out")
            code = (errno.ENOSPC, errno.EIO, errno.EROFS)[number % 3]
            try:
                with broken_disk(full_at(number, code)) as count:
                    work(folder)
            except (OSError, UserError) as error:
                assert str(error)
                tried += 1
                assert state(folder / "out") in (old, new)
                assert leftovers(folder) == []
            else:
                assert state(folder / "out") == new
                if count[0] < number:
                    break
            number += 1
        tally(
            "disk full, broken or read-only at each write, fsync, rename, mkdir",
            "whole or as before; no leftover",
            tried,
        )

    @pytest.mark.parametrize("form", BOTH_FORMS)
    def test_kill_9(self, work: Work, is_there: bool, form: Form, folder: Path, tally: Tally) -> None:
        work(folder)
        new, number = state(folder / "out"), 1
        while True:
            afresh(folder)
            if is_there:
                old_one(work, folder)
            old = state(folder / "out")
            if not is_killed(lambda: work(folder), at=number):
                break
            found = state(folder / "out")
            former = any(name.endswith(".former.partial") for name in leftovers(folder))
            assert found in (old, new) or (found is None and former)
            work(folder)
            assert state(folder / "out") == new
            assert leftovers(folder) == [] or work is atomic_file
            number += form.every
        tally(
            "kill -9 at each write, fsync, rename, mkdir",
            "whole or as before; the next run goes well",
            number // form.every,
        )
