"""The ten performances of maestro-mini, with a fake pip."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coma_gen.core.errors import UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.corpus import maestro_mini
from coma_gen.corpus.maestro_mini import MINI, SDIST, write_mini


class FakePip:
    """Puts the source distribution where pip would, or fails as pip would."""

    def __init__(self, content: bytes = b"", error: str = "") -> None:
        self.content, self.error, self.calls = content, error, 0

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        self.requirement = Path(command[command.index("--requirement") + 1]).read_text()
        self.command = command
        if not self.error:
            (Path(command[command.index("--dest") + 1]) / SDIST).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 1 if self.error else 0, "", self.error)


@pytest.fixture
def sdist(midi: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A source distribution with ten other performances under the right names."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in ("PKG-INFO", *(f"tests/MIDIs_one_track/Maestro_{number}.mid" for number in range(1, 11))):
            content = (
                midi(int(name.removesuffix(".mid").rpartition("_")[2])) if name.endswith(".mid") else b"text"
            )
            info = tarfile.TarInfo(f"miditok-3.1.0/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    rows = tuple(row._replace(sha256=sha256_bytes(midi(row.number))) for row in MINI)
    monkeypatch.setattr(maestro_mini, "MINI", rows)
    monkeypatch.setattr(maestro_mini, "SDIST_SHA256", sha256_bytes(stream.getvalue()))
    return stream.getvalue()


def test_the_table_is_ten_rows_of_maestro() -> None:
    assert [row.number for row in MINI] == list(range(1, 11))
    assert Counter(row.split for row in MINI) == {"train": 8, "validation": 1, "test": 1}
    assert round(sum(row.duration for row in MINI) / 3600, 2) == 2.82
    assert len({row.sha256 for row in MINI}) == len({row.midi_filename for row in MINI}) == 10
    performance = MINI[0].performance()
    assert (performance.year, performance.composer) == ("2009", "Frédéric Chopin")
    assert performance.audio_filename.endswith("_03_WAV.wav")


def test_they_are_fetched_once_and_stand_under_their_official_names(
    tmp_path: Path, sdist: bytes, midi: Callable[[int], bytes]
) -> None:
    pip = FakePip(sdist)
    rows = write_mini(tmp_path / "one", cache=tmp_path / "cache", run=pip)
    assert len(rows) == 10
    for row in maestro_mini.MINI:
        assert (tmp_path / "one" / row.midi_filename).read_bytes() == midi(row.number)
    assert pip.requirement == f"miditok==3.1.0 --hash=sha256:{sha256_bytes(sdist)}\n"
    assert {"--require-hashes", "--no-deps", "--no-binary"} <= set(pip.command)
    assert write_mini(tmp_path / "two", cache=tmp_path / "cache", run=pip) == rows
    assert pip.calls == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [SDIST]


def test_a_damaged_cache_is_fetched_again(tmp_path: Path, sdist: bytes) -> None:
    (tmp_path / SDIST).write_bytes(sdist[:-1])
    pip = FakePip(sdist)
    write_mini(tmp_path / "one", cache=tmp_path, run=pip)
    assert pip.calls == 1


def test_without_an_index_pips_last_word_and_the_way_out_are_said(tmp_path: Path, sdist: bytes) -> None:
    said = "WARNING: Retrying\nERROR: No matching distribution found for miditok==3.1.0\n\nWARNING: x\n"
    with pytest.raises(UserError) as caught:
        write_mini(tmp_path / "one", cache=tmp_path / "cache", run=FakePip(error=said))
    assert "got ERROR: No matching distribution found for miditok==3.1.0" in str(caught.value)
    assert "dvc exp run -S download.corpus=synthetic" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_pip_that_never_ends_is_given_up(tmp_path: Path) -> None:
    def hangs(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    with pytest.raises(UserError, match="nothing within 600 s"):
        write_mini(tmp_path, cache=tmp_path, run=hangs)


def test_another_file_is_never_opened(tmp_path: Path, sdist: bytes) -> None:
    with pytest.raises(UserError, match="must have the SHA-256"):
        write_mini(tmp_path / "one", cache=tmp_path / "cache", run=FakePip(b"other"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_each_performance_is_proven(tmp_path: Path, sdist: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = (maestro_mini.MINI[0]._replace(sha256="0" * 64), *maestro_mini.MINI[1:])
    monkeypatch.setattr(maestro_mini, "MINI", wrong)
    with pytest.raises(UserError, match=r"Maestro_1\.mid: must have the SHA-256 000"):
        write_mini(tmp_path / "one", cache=tmp_path, run=FakePip(sdist))
    more = (*maestro_mini.MINI[1:], maestro_mini.MINI[0]._replace(number=11))
    monkeypatch.setattr(maestro_mini, "MINI", more)
    with pytest.raises(UserError, match="none of number 11"):
        write_mini(tmp_path / "two", cache=tmp_path, run=FakePip(sdist))
