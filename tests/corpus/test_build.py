"""Building a corpus from each of the four sources."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from coma_gen.config.schema import DownloadParams
from coma_gen.core.artifact import verify_artifact
from coma_gen.core.errors import UserError
from coma_gen.core.io import sha256_bytes, sha256_file
from coma_gen.corpus import build as sources
from coma_gen.corpus import maestro
from coma_gen.corpus.build import build_corpus
from coma_gen.corpus.table import Performance, read_table

Download = Callable[..., DownloadParams]


def build(download: DownloadParams, folder: Path, own: Path = Path("none")) -> dict[str, object]:
    return build_corpus(download, folder / "corpus", cache=folder / "cache", own_folder=own)


def test_synthetic_is_a_sealed_table_with_its_files(download: Download, tmp_path: Path) -> None:
    metrics = build(download("synthetic"), tmp_path)
    corpus = tmp_path / "corpus"
    rows = read_table(corpus / "corpus.csv", folder=corpus)
    manifest = verify_artifact(corpus, kind="corpus")
    assert manifest.settings == {"corpus": "synthetic", "performances": 3, "seconds": 6.0, "seed": 0}
    assert [row.sha256 for row in rows] == [sha256_file(corpus / row.midi_filename) for row in rows]
    size = sum((corpus / row.midi_filename).stat().st_size for row in rows)
    assert metrics == {"corpus": "synthetic", "performances": 3, "files": 3, "bytes": size}


def test_building_twice_gives_the_same_folder_whatever_does_not_matter(
    download: Download, tmp_path: Path
) -> None:
    build(download("synthetic"), tmp_path / "one")
    build(download("synthetic", path="elsewhere", maestro_sha256="1" * 64), tmp_path / "two")
    build(download("synthetic", synthetic_seed=1), tmp_path / "other")
    digests = [
        verify_artifact(tmp_path / name / "corpus", kind="corpus").digest for name in ("one", "two", "other")
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_folder_of_ones_own(download: Download, tmp_path: Path, own_folder: Path) -> None:
    metrics = build(download("folder"), tmp_path, own_folder)
    assert metrics["performances"] == metrics["files"] == 4
    assert (metrics["twins"], metrics["not_in_table"]) == (0, 0)
    verify_artifact(tmp_path / "corpus", kind="corpus")


def test_the_ten_come_from_the_cache(
    download: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Callable[..., Performance]
) -> None:
    def write_mini(folder: Path, *, cache: Path) -> list[Performance]:
        assert cache == tmp_path / "cache"
        (folder / "a.mid").write_bytes(b"music")
        return [row("a.mid")]

    monkeypatch.setattr(sources.maestro_mini, "write_mini", write_mini)
    metrics = build(download("maestro-mini"), tmp_path)
    assert metrics == {"corpus": "maestro-mini", "performances": 1, "files": 1, "bytes": 5}
    assert "miditok-3.1.0.tar.gz" in verify_artifact(tmp_path / "corpus", kind="corpus").made_from


def test_maestro_is_the_same_by_any_road(
    download: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, midi: Callable[[int], bytes]
) -> None:
    table = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n"
    files = {
        "2004/a.midi": midi(1),
        "maestro-v3.0.0.csv": f"{table}A / B,T,train,2004,2004/a.midi,,2\n".encode(),
    }
    digests = {name: sha256_bytes(content) for name, content in files.items()}
    monkeypatch.setattr(maestro, "MANIFEST_SHA256", maestro.manifest_digest(digests))
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"maestro-v3.0.0/{name}", content)
            (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "m" / name).write_bytes(content)
    found = []
    for name in ("m.zip", "m"):
        monkeypatch.setenv(maestro.ARCHIVE_VARIABLE, str(tmp_path / name))
        build(download("maestro"), tmp_path / f"from {name}")
        found.append(verify_artifact(tmp_path / f"from {name}" / "corpus", kind="corpus").digest)
    assert found[0] == found[1]


def test_a_fault_leaves_the_former_corpus_alone(download: Download, tmp_path: Path) -> None:
    build(download("synthetic"), tmp_path)
    before = verify_artifact(tmp_path / "corpus", kind="corpus").digest
    with pytest.raises(UserError):
        build(download("folder"), tmp_path, tmp_path / "none")
    assert verify_artifact(tmp_path / "corpus", kind="corpus").digest == before
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
