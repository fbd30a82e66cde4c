"""Builds the corpus from one of several sources: an artifact with a table and its MIDI files.

`CORPORA` has a function for each source, which writes MIDI files into the folder and returns their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coma_gen.config.schema import DownloadParams
from coma_gen.core.artifact import write_manifest
from coma_gen.core.io import atomic_dir, sha256_file
from coma_gen.corpus import folder as own
from coma_gen.corpus import maestro, maestro_mini, synthetic
from coma_gen.corpus.table import CORPUS_TABLE, Performance, write_table

KIND = "corpus"
LISTED = 20
"""Maximum number of names that a metrics file lists; counts are always complete."""


@dataclass(frozen=True)
class Destination:
    """Folders of a source.

    Attributes:
        folder: Folder that becomes the corpus; MIDI files are written into it.
        cache: Folder of downloaded archives, reused between builds.
        own_folder: Folder of `download.path`, for the source "folder".
    """

    folder: Path
    cache: Path
    own_folder: Path


@dataclass(frozen=True)
class SourceResult:
    """Result of a source.

    Attributes:
        performances: One row per MIDI file.
        made_from: Name -> SHA-256 of each download.
        settings: Settings of the source.
        figures: Metrics in addition to those of every corpus.
    """

    performances: list[Performance]
    made_from: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


def build_corpus(
    download: DownloadParams, destination: Path, *, cache: Path, own_folder: Path
) -> dict[str, Any]:
    """Builds the corpus as an artifact of kind "corpus".

    Args:
        download: Source and its settings.
        destination: Folder to write; replaced as a whole, or left unchanged on an error.
        cache: Folder of downloaded archives, reused between builds.
        own_folder: Folder of `download.path`, for the source "folder".

    Returns:
        Metrics: corpus, performances, files and bytes (MIDI files only); for the source "folder" also twins,
        not_in_table and the first of these names.

    Raises:
        UserError: The source is unavailable or has unexpected content.
    """
    with atomic_dir(destination) as building:
        result = CORPORA[download.corpus](download, Destination(building, cache, own_folder))
        paths = [building / row.midi_filename for row in result.performances]
        rows = [
            replace(row, sha256=sha256_file(path))
            for row, path in zip(result.performances, paths, strict=True)
        ]
        write_table(building / CORPUS_TABLE, rows)
        settings = {"corpus": download.corpus, **result.settings}
        write_manifest(building, kind=KIND, made_from=result.made_from, settings=settings)
        size = sum(path.stat().st_size for path in paths)
    return {
        "corpus": download.corpus,
        "performances": len(rows),
        "files": len(paths),
        "bytes": size,
        **result.figures,
    }


def _write_maestro_mini(_download: DownloadParams, to: Destination) -> SourceResult:
    rows = maestro_mini.write_mini(to.folder, cache=to.cache)
    return SourceResult(rows, made_from={maestro_mini.SDIST: maestro_mini.SDIST_SHA256})


def _write_maestro(download: DownloadParams, to: Destination) -> SourceResult:
    url, sha256 = download.maestro_url, download.maestro_sha256
    rows = maestro.write_maestro(to.folder, url=url, sha256=sha256, cache=to.cache)
    return SourceResult(rows, made_from={"maestro-v3.0.0": maestro.MANIFEST_SHA256})


def _write_synthetic(download: DownloadParams, to: Destination) -> SourceResult:
    count, seconds = download.synthetic_performances, download.synthetic_seconds
    seed = download.synthetic_seed
    rows = synthetic.write_synthetic(to.folder, performances=count, seconds=seconds, seed=seed)
    return SourceResult(rows, settings={"performances": count, "seconds": seconds, "seed": seed})


def _write_folder(_download: DownloadParams, to: Destination) -> SourceResult:
    music = own.write_folder(to.own_folder, to.folder)
    names = music.not_in_table
    surplus = {"not_in_table_named": names[:LISTED]} if names else {}
    figures = {"twins": music.twins, "not_in_table": len(names), **surplus}
    return SourceResult(music.performances, figures=figures)


CORPORA: dict[str, Callable[[DownloadParams, Destination], SourceResult]] = {
    "maestro-mini": _write_maestro_mini,
    "maestro": _write_maestro,
    "synthetic": _write_synthetic,
    "folder": _write_folder,
}
"""Value of download.corpus -> function that writes that corpus."""
