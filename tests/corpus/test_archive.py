"""Archives that try to write outside their folder or exceed the size limits."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from coma_gen.core.errors import UserError
from coma_gen.corpus import archive
from coma_gen.corpus.archive import Limits, read_tar_gz, read_zip


def a_zip(path: Path, entries: Sequence[tuple[str, bytes]], mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def a_tar(path: Path, entries: Sequence[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "nowhere" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info, io.BytesIO(content))
    return path


def test_files_come_in_order_and_folders_do_not_count(tmp_path: Path) -> None:
    files = [("top/b.mid", b"two"), ("top/a/c.mid", b""), ("top/..a/x", b"three")]
    with zipfile.ZipFile(a_zip(tmp_path / "a.zip", files), "a") as archive:
        archive.mkdir("top/folder")
    assert list(read_zip(tmp_path / "a.zip")) == files
    assert list(read_tar_gz(a_tar(tmp_path / "a.tar.gz", files))) == files


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/a", "a\\b", "C:/a", "a//b", ".."])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    good = ("good.mid", b"x")
    with pytest.raises(UserError, match=r"inside one folder, got .*"):
        list(read_zip(a_zip(tmp_path / "a.zip", [good, (name, b"x")])))
    with pytest.raises(UserError, match="inside one folder"):
        list(read_tar_gz(a_tar(tmp_path / "a.tar.gz", [good, (name, b"x")])))


@pytest.mark.parametrize("names", [("a.mid", "a.mid"), ("a.mid", "A.mid"), ("ä", "Ä")])
def test_no_name_stands_twice_in_any_case(tmp_path: Path, names: tuple[str, str]) -> None:
    entries = [(name, b"x") for name in names]
    with pytest.warns(UserWarning) if names[0] == names[1] else _nothing():
        a_zip(tmp_path / "a.zip", entries)
    with pytest.raises(UserError, match="a name twice"):
        list(read_zip(tmp_path / "a.zip"))
    with pytest.raises(UserError, match="a name twice"):
        list(read_tar_gz(a_tar(tmp_path / "a.tar.gz", entries)))


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(UserError, match="a link or device"):
        list(read_tar_gz(a_tar(tmp_path / "a.tar.gz", [("a", b"")], kind)))
    with pytest.raises(UserError, match="a link or device"):
        list(read_zip(a_zip(tmp_path / "a.zip", [("a", b"nowhere")], stat.S_IFLNK | 0o777)))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(entries=2), "at most 2 entries"),
        (Limits(file_bytes=99), "at most 99 bytes"),
        (Limits(total_bytes=299), "more"),
    ],
)
def test_the_limits_hold(tmp_path: Path, limits: Limits, words: str) -> None:
    entries = [(f"{number}", bytes(100)) for number in range(3)]
    a_zip(tmp_path / "a.zip", entries)
    a_tar(tmp_path / "a.tar.gz", entries)
    for read, name in ((read_zip, "a.zip"), (read_tar_gz, "a.tar.gz")):
        with pytest.raises(UserError, match=words):
            list(read(tmp_path / name, limits=limits))


def test_what_inflates_too_well_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_FREE_BYTES", 2**10)
    a_zip(tmp_path / "a.zip", [("zeros", bytes(2**17))])
    a_tar(tmp_path / "a.tar.gz", [("zeros", bytes(2**17))])
    for read, name in ((read_zip, "a.zip"), (read_tar_gz, "a.tar.gz")):
        with pytest.raises(UserError, match="must inflate to at most"):
            list(read(tmp_path / name))


def test_damage_is_a_fault_of_the_archive(tmp_path: Path) -> None:
    whole = a_zip(tmp_path / "a.zip", [("a", bytes(range(256)) * 50)]).read_bytes()
    flipped = bytearray(whole)
    flipped[60] ^= 255
    tar = a_tar(tmp_path / "a.tar.gz", [("a", bytes(range(256)) * 50)]).read_bytes()
    for content in (whole[:-30], bytes(flipped), b"", b"PK\x03\x04"):
        (tmp_path / "b.zip").write_bytes(content)
        with pytest.raises(UserError, match=r"b\.zip: must be a whole zip archive"):
            list(read_zip(tmp_path / "b.zip"))
    for content in (tar[: len(tar) // 2], b"", b"\x1f\x8b"):
        (tmp_path / "b.tar.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"b\.tar\.gz: must be a whole tar\.gz archive"):
            list(read_tar_gz(tmp_path / "b.tar.gz"))
    with pytest.raises(UserError, match="whole zip"):
        list(read_zip(tmp_path / "none.zip"))
