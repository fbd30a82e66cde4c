"""Whatever is written is whole or absent: on a disk that fails at any call, and after kill -9 at any call."""

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
"""Writes `place`/out anew."""


def atomic_file(place: Path) -> None:
    write_atomic(place / "out", "new" * 5000)


def sealed_folder(place: Path) -> None:
    with atomic_dir(place / "out") as building:
        for name in ("a", "deep/b"):
            (building / name).parent.mkdir(exist_ok=True)
            (building / name).write_text("new")
        write_manifest(building, kind="corpus", made_from={}, settings={})


def corpus(place: Path) -> None:
    build_corpus(DOWNLOAD, place / "out", cache=place, own_folder=place)


def split(place: Path) -> None:
    split_corpus(SPLIT, place.parent / "corpus", place / "out")


def state(path: Path) -> Any:
    """What a file or folder holds; None where it is not there."""
    if path.is_dir():
        names = sorted(each for each in path.rglob("*") if each.is_file())
        return {each.relative_to(path).as_posix(): sha256_file(each) for each in names}
    return path.read_bytes() if path.exists() else None


def leftovers(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.name != "out")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write `out` in, beside a corpus; the split trusts that its files can be read."""
    build_corpus(DOWNLOAD, tmp_path / "corpus", cache=tmp_path, own_folder=tmp_path)
    monkeypatch.setattr(splitting, "read_all", lambda paths: [Reading(7, 5.0)] * len(paths))
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def old_one(work: Work, place: Path) -> None:
    """Something that stood there before, and is whole."""
    if work is atomic_file:
        (place / "out").write_text("old")
        return
    (place / "out").mkdir()
    (place / "out" / "old").write_text("old")
    kind = "split" if work is split else "corpus"
    write_manifest(place / "out", kind=kind, made_from={}, settings={})


def afresh(place: Path) -> None:
    shutil.rmtree(place)
    place.mkdir()


@pytest.mark.parametrize("work", [atomic_file, sealed_folder, corpus, split])
@pytest.mark.parametrize("is_there", [False, True], ids=["fresh", "again"])
class TestEveryCall:
    """Of a writer, in turn."""

    def test_a_full_disk(self, work: Work, is_there: bool, place: Path, tally: Tally) -> None:
        work(place)
        new, number, tried = state(place / "out"), 1, 0
        while True:
            afresh(place)
            if is_there:
                old_one(work, place)
            old = state(place / "out")
            code = (errno.ENOSPC, errno.EIO, errno.EROFS)[number % 3]
            try:
                with broken_disk(full_at(number, code)) as count:
                    work(place)
            except (OSError, UserError) as error:
                assert str(error)
                tried += 1
                assert state(place / "out") in (old, new)
                assert leftovers(place) == []
            else:
                assert state(place / "out") == new
                if count[0] < number:
                    break
            number += 1
        tally(
            "disk full, broken or read-only at each write, fsync, rename, mkdir",
            "whole or as before; no leftover",
            tried,
        )

    @pytest.mark.parametrize("form", BOTH_FORMS)
    def test_kill_9(self, work: Work, is_there: bool, form: Form, place: Path, tally: Tally) -> None:
        work(place)
        new, number = state(place / "out"), 1
        while True:
            afresh(place)
            if is_there:
                old_one(work, place)
            old = state(place / "out")
            if not is_killed(lambda: work(place), at=number):
                break
            found = state(place / "out")
            former = any(name.endswith(".former.partial") for name in leftovers(place))
            assert found in (old, new) or (found is None and former)
            work(place)
            assert state(place / "out") == new
            assert leftovers(place) == [] or work is atomic_file
            number += form.every
        tally(
            "kill -9 at each write, fsync, rename, mkdir",
            "whole or as before; the next run goes well",
            number // form.every,
        )
