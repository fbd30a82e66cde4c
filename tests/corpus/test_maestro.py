"""MAESTRO from every supported source: files are verified by content."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coma_gen.core.errors import UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.corpus import maestro

HEADER = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n"


@pytest.fixture
def files(midi: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A MAESTRO of two performances, and the constant that stands for it."""
    rows = "A / B,T,train,2018,2018/a b.midi,2018/a b.wav,2.0\nC,U,test,2004,2004/c.midi,2004/c.wav,2.5\n"
    content = {
        "2018/a b.midi": midi(1),
        "2004/c.midi": midi(2),
        "maestro-v3.0.0.csv": (HEADER + rows).encode(),
        "maestro-v3.0.0.json": b"{}",
        "LICENSE": b"cc",
        "README": b"read",
    }
    digests = {name: sha256_bytes(each) for name, each in content.items()}
    monkeypatch.setattr(maestro, "MANIFEST_SHA256", maestro.manifest_digest(digests))
    return content


def a_zip(path: Path, files: dict[str, bytes], top: str = "maestro-v3.0.0/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in reversed(files.items()):
            archive.writestr(top + name, content)
    return path


def write(folder: Path, **options: Any) -> list[Any]:
    folder.mkdir(exist_ok=True)
    settings = {
        "url": "https://example.org/no",
        "sha256": "0" * 64,
        "cache": folder.parent / "cache",
        **options,
    }
    return maestro.write_maestro(folder, **settings)


def test_the_manifest_is_sorted_lines_of_digest_and_path() -> None:
    lines = f"{'b' * 64}  ./2004/x.midi\n{'c' * 64}  ./LICENSE\n{'a' * 64}  ./maestro-v3.0.0.csv\n"
    digests = {"maestro-v3.0.0.csv": "a" * 64, "LICENSE": "c" * 64, "2004/x.midi": "b" * 64}
    assert maestro.manifest_digest(digests) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize("top", ["", "maestro-v3.0.0/", "any/where/"])
def test_a_named_zip_is_read_without_a_network(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, top: str
) -> None:
    more = {**files, "../".join(["a", ""]).strip("./") + ".DS_Store": b"", "2018/a b.wav": b"sound"}
    monkeypatch.setenv(maestro.ARCHIVE_VARIABLE, str(a_zip(tmp_path / "m.zip", more, top)))
    rows = write(tmp_path / "out")
    assert [(row.composer, row.split, row.midi_filename, row.duration) for row in rows] == [
        ("A / B", "train", "2018/a b.midi", 2.0),
        ("C", "test", "2004/c.midi", 2.5),
    ]
    written = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")
    )
    assert written == ["2004/c.midi", "2018/a b.midi"]
    assert (tmp_path / "out" / "2004/c.midi").read_bytes() == files["2004/c.midi"]


def test_a_named_folder_is_read(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in files.items():
        path = tmp_path / "m" / "deeper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.setenv(maestro.ARCHIVE_VARIABLE, str(tmp_path / "m"))
    assert len(write(tmp_path / "out")) == 2
    (tmp_path / "m" / "2018").mkdir()
    (tmp_path / "m" / "2018" / "a b.midi").write_bytes(b"again")
    with pytest.raises(UserError, match=r"once, got 2018/a b\.midi twice"):
        write(tmp_path / "again")


@pytest.mark.parametrize("change", ["flip", "drop", "add", "table"])
def test_anything_else_is_refused(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    if change == "flip":
        files["2004/c.midi"] = files["2004/c.midi"][:-1] + b"!"
    elif change == "drop":
        del files["2004/c.midi"]
    elif change == "add":
        files["2004/d.midi"] = b"MThd"
    else:
        del files["maestro-v3.0.0.csv"]
    monkeypatch.setenv(maestro.ARCHIVE_VARIABLE, str(a_zip(tmp_path / "m.zip", files)))
    with pytest.raises(UserError, match="file for file") as caught:
        write(tmp_path / "out")
    words = {"drop": "1 performances", "add": "3 performances", "table": "no maestro-v3.0.0.csv"}
    assert words.get(change, "2 performances") in str(caught.value)


def test_a_named_archive_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(maestro.ARCHIVE_VARIABLE, str(tmp_path / "none.zip"))
    with pytest.raises(UserError, match=maestro.ARCHIVE_VARIABLE):
        write(tmp_path / "out")


def test_it_is_downloaded_once_and_read_from_the_cache(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    monkeypatch.delenv(maestro.ARCHIVE_VARIABLE, raising=False)
    content = a_zip(tmp_path / "m.zip", files).read_bytes()
    server.answers = [(200, {}, content)]
    source = {"url": f"{server.address}/m.zip", "sha256": sha256_bytes(content)}
    assert write(tmp_path / "one", **source) == write(tmp_path / "two", **source)
    assert len(server.asked) == 1
    with pytest.raises(
        UserError, match=r"must be reachable.*COMA_MAESTRO_ARCHIVE.*download\.corpus=synthetic"
    ):
        server.answers = [(404, {}, b"")]
        write(tmp_path / "three", **{**source, "cache": tmp_path / "empty"})
