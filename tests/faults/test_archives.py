"""Hostile archives: path traversal, decompression bombs, damage."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coma_gen.core.errors import UserError
from coma_gen.corpus import archive
from coma_gen.corpus.archive import Limits, read_tar_gz, read_zip
from faults.budgets import BOTH_FORMS, Form, search
from faults.mutations import mutated

Tally = Callable[[str, str, int], None]
Reader = Callable[..., Iterator[tuple[str, bytes]]]
MUSIC = b"MThd" + bytes(range(200))
FILES = [("top/a.mid", MUSIC), ("top/b/c.mid", b""), ("top/d.csv", b"x,y\n" * 100)]
LIMITS = Limits(entries=12, file_bytes=2**12, total_bytes=2**14, ratio=100)
"""So low that what is beyond them is small, too."""


def a_zip(
    *entries: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A zip of entries whose names are written as they are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        for name, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, method
            archive.writestr(info, content)
    return stream.getvalue()


def a_tar(
    *entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "", size: int | None = None
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
            if size is not None:
                info.size = size
    return gzip.compress(stream.getvalue(), mtime=0)


def patched(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """A zip with some bytes of its (last) record of a kind replaced."""
    at = content.rindex(signature) + offset
    return content[:at] + value + content[at + len(value) :]


CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
ONE = a_zip(("a.mid", MUSIC))
NAMES = {
    "parent": "../a.mid", "parent inside": "a/../../b", "absolute": "/nowhere/a.mid", "drive": "C:/a",
    "backslash": "..\\a", "only parent": "..", "empty part": "a//b", "dot part": "a/./b", "dot": ".",
    "empty": "", "long": "x" * 300, "drive without slash": "c:a", "unc": "\\\\server\\share",
}  # fmt: skip
TWICE = {
    "same": ("a.mid", "a.mid"), "case": ("a.mid", "A.MID"), "accents": ("é", "e\u0301"),
    "sharp s": ("straße", "STRASSE"), "file and folder": ("a", "a/b"), "folder and file": ("a/b", "a"),
    "deep case": ("A/x", "a/X"),
}  # fmt: skip
ZIPS: dict[str, tuple[bytes, str]] = {
    **{f"name: {key}": (a_zip(("a.mid", b"x"), (name, b"x")), "name|whole") for key, name in NAMES.items()},
    **{f"twice: {key}": (a_zip(*((name, b"x") for name in pair)), "twice") for key, pair in TWICE.items()},
    **{
        f"kind: {key}": (a_zip(("evil", b"nowhere"), mode=kind | 0o777), "a link or device, 'evil'")
        for key, kind in {
            "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "device": stat.S_IFCHR, "disk": stat.S_IFBLK,
            "socket": stat.S_IFSOCK,
        }.items()
    },
    "method: bzip2": (a_zip(("a", MUSIC), method=zipfile.ZIP_BZIP2), "stored or deflated"),
    "method: lzma": (a_zip(("a", MUSIC), method=zipfile.ZIP_LZMA), "stored or deflated"),
    "method: unknown": (patched(ONE, CENTRAL, 10, b"\x63\x00"), "method 99, 'a.mid'"),
    "too many": (a_zip(*((f"{number}", b"") for number in range(13))), "at most 12 entries"),
    "too large a file": (a_zip(("a", bytes(LIMITS.file_bytes + 1)), method=zipfile.ZIP_STORED), "more, 'a'"),
    "too much": (a_zip(*((f"{number}", bytes(2**12)) for number in range(5))), "must inflate to at most"),
    "encrypted": (patched(patched(ONE, CENTRAL, 8, b"\x01\x00"), LOCAL, 6, b"\x01\x00"), "whole zip"),
    "claims less": (patched(ONE, CENTRAL, 24, struct.pack("<I", 10)), "at 'a.mid'"),
    "claims more": (patched(ONE, CENTRAL, 24, struct.pack("<I", len(MUSIC) + 9)), "at 'a.mid'"),
    "wrong checksum": (patched(ONE, CENTRAL, 16, b"\0\0\0\0"), "at 'a.mid'"),
    "another name inside": (patched(ONE, LOCAL, 30, b"b"), "whole zip"),
    "starts beyond the end": (patched(ONE, CENTRAL, 42, struct.pack("<I", len(ONE))), "whole zip"),
    "table beyond the end": (patched(ONE, END, 16, struct.pack("<I", len(ONE))), "whole zip"),
    "table larger than the file": (patched(ONE, END, 12, struct.pack("<I", len(ONE))), "whole zip"),
    "cut": (ONE[:-10], "whole zip"),
    "cut in a file": (ONE[: len(ONE) // 2], "whole zip"),
    "empty": (b"", "whole zip"),
    "text": (b"<html>", "whole zip"),
    "tar": (a_tar(("a", MUSIC)), "whole zip"),
}  # fmt: skip
TARS: dict[str, tuple[bytes, str]] = {
    **{f"name: {key}": (a_tar(("a.mid", b"x"), (name, b"x")), "name") for key, name in NAMES.items() if name},
    **{f"twice: {key}": (a_tar(*((name, b"x") for name in pair)), "twice") for key, pair in TWICE.items()},
    **{
        f"kind: {key}": (a_tar(("evil", b""), kind=kind, link="nowhere"), "a link or device, 'evil'")
        for key, kind in {
            "symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE,
            "disk": tarfile.BLKTYPE, "fifo": tarfile.FIFOTYPE, "contiguous": b"V",
        }.items()
    },
    "too many": (a_tar(*((f"{number}", b"") for number in range(13))), "at most 12 entries"),
    "too large a file": (a_tar(("a", bytes(LIMITS.file_bytes + 1))), "more, 'a'"),
    "much behind its end": (gzip.compress(bytes(LIMITS.total_bytes + 1)), "inflate to at most"),
    "nothing but an end": (gzip.compress(b""), "whole tar.gz"),
    "cut between two files": (gzip.compress(gzip.decompress(a_tar(*FILES))[:1024]), "cut off"),
    "wrong checksum": (a_tar(("a", MUSIC))[:-8] + bytes(8), "whole tar.gz"),
    "a name as long as all may be": (a_tar(("n" * LIMITS.total_bytes, b"")), "inflate to at most"),
    "too much": (a_tar(*((f"{number}", bytes(2**12)) for number in range(5))), "inflate to at most"),
    "cut": (a_tar(("a", MUSIC * 50))[:-30], "whole tar.gz"),
    "cut inside": (gzip.compress(gzip.decompress(a_tar(("a", MUSIC * 50)))[:900]), "whole tar.gz"),
    "empty": (b"", "whole tar.gz"),
    "text": (b"<html>", "whole tar.gz"),
    "zip": (ONE, "whole tar.gz"),
}  # fmt: skip
KINDS: list[tuple[Reader, str, bytes, str]] = [
    (reader, name, content, words)
    for reader, table in ((read_zip, ZIPS), (read_tar_gz, TARS))
    for name, (content, words) in table.items()
]


@pytest.mark.parametrize(("reader", "make"), [(read_zip, a_zip), (read_tar_gz, a_tar)], ids=["zip", "tar"])
def test_an_archive_that_grows_beyond_its_ratio_is_refused(
    reader: Reader, make: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """Though it stays below all other limits: 64 KiB out of some 500 bytes."""
    evil = tmp_path / "evil"
    evil.write_bytes(make(*((f"{number}", bytes(2**13)) for number in range(8))))
    monkeypatch.setattr(archive, "_FREE_BYTES", 2**17)
    assert len(list(reader(evil))) == 8
    for free, most in ((2**15, 2**15), (2**9, 10 * evil.stat().st_size)):
        monkeypatch.setattr(archive, "_FREE_BYTES", free)
        with pytest.raises(UserError, match=f"must inflate to at most {most:,} bytes"):
            list(reader(evil, limits=Limits(ratio=10)))
    tally("an archive that inflates to more than its ratio", "refused by entry", 2)


@pytest.mark.parametrize(
    ("reader", "name", "content", "words"),
    KINDS,
    ids=[f"{kind[0].__name__[5:]}: {kind[1]}" for kind in KINDS],
)
def test_each_evil_archive_is_refused_by_entry(
    reader: Reader, name: str, content: bytes, words: str, tmp_path: Path, tally: Tally
) -> None:
    path = tmp_path / "evil"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        list(reader(path, limits=LIMITS))
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["evil"]
    tally("an archive made to break out, blow up or mislead", "refused by entry; nothing is written", 1)


def test_a_table_of_more_bytes_than_the_limit_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    monkeypatch.setattr(archive, "_MAX_READ", 4096)
    entry = struct.pack("<4s6H3I5H2I", CENTRAL, 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    table = entry * 90
    end = struct.pack("<4s4H2IH", END, 0, 0, 90, 90, len(table), 0, 0)
    (tmp_path / "a.zip").write_bytes(table + end)
    with pytest.raises(UserError, match="a table of entries"):
        list(read_zip(tmp_path / "a.zip"))
    tally("an archive made to break out, blow up or mislead", "refused by entry; nothing is written", 1)


SEEDS = {
    read_zip: [a_zip(*FILES), a_zip(*FILES, method=zipfile.ZIP_STORED), a_zip(("é", b"1"), ("b/", b""))],
    read_tar_gz: [
        gzip.decompress(a_tar(*FILES)),
        gzip.decompress(a_tar(("é" * 90, MUSIC), ("b" * 120, MUSIC))),
    ],
}


@pytest.mark.parametrize("form", BOTH_FORMS)
@pytest.mark.parametrize("reader", [read_zip, read_tar_gz], ids=["zip", "tar.gz"])
def test_no_change_of_bytes_breaks_a_reader(reader: Reader, form: Form, tmp_path: Path, tally: Tally) -> None:
    """What comes through is inside the folder and inside the limits; everything else is a `UserError`."""
    path = tmp_path / "evil"

    def check(content: bytes) -> None:
        path.write_bytes(gzip.compress(content, 1) if reader is read_tar_gz else content)
        try:
            files = list(reader(path, limits=LIMITS))
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            return
        assert len({name.casefold() for name, _ in files}) == len(files) <= LIMITS.entries
        for name, content_ in files:
            assert not name.startswith("/") and ".." not in name.split("/") and "\\" not in name
            assert len(content_) <= LIMITS.file_bytes

    inputs = mutated(*SEEDS[reader])
    times = search(check, inputs, form, batch=150)
    tally(
        "an archive with bytes changed, cut, doubled or moved",
        "read within the limits, or one clear line",
        times,
    )


def test_what_was_found_once(tmp_path: Path, tally: Tally) -> None:
    """Inputs that broke a reader when it was written."""
    found = {
        # bytes beyond 64 bits in a zip64 field: OverflowError
        "overflow": patched(ONE, CENTRAL, 42, b"\xff\xff\xff\xff"),
        # a table of entries cut inside of a header: struct.error
        "cut table": patched(ONE, END, 12, struct.pack("<I", 30)),
    }
    for name, content in found.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError):
            list(read_zip(tmp_path / name))
    tally("archives that broke a reader once", "one clear line", len(found))
