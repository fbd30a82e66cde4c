"""Several sources, one corpus: a sealed folder with a table and the MIDI files it names.

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
"""How many names a metrics file lists; the number is always whole."""


@dataclass(frozen=True)
class Destination:
    """Where a source writes to and reads from.

    Attributes:
        folder: what becomes the corpus; MIDI files are written into it.
        cache: where archives are kept between builds.
        own_folder: where `download.path` leads, for the source "folder".
    """

    folder: Path
    cache: Path
    own_folder: Path


@dataclass(frozen=True)
class Collected:
    """What a source has written.

    Attributes:
        performances: a row for each MIDI file.
        made_from: name -> SHA-256 of what was downloaded.
        settings: what was chosen.
        figures: metrics beside those that every corpus has.
    """

    performances: list[Performance]
    made_from: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


def build_corpus(
    download: DownloadParams, destination: Path, *, cache: Path, own_folder: Path
) -> dict[str, Any]:
    """Makes the corpus that `download` asks for, as an artifact of kind "corpus".

    Args:
        download: which source, and its settings.
        destination: the folder to make; replaced as a whole, or left alone on a fault.
        cache: where archives are kept between builds.
        own_folder: where `download.path` leads, for the source "folder".

    Returns:
        metrics: corpus, performances, files and bytes (MIDI files only); and for a person's own files twins,
            not_in_table and the first of these.

    Raises:
        UserError: the source cannot be had or is not what it should be.
    """
    with atomic_dir(destination) as building:
        collected = CORPORA[download.corpus](download, Destination(building, cache, own_folder))
        paths = [building / row.midi_filename for row in collected.performances]
        rows = [
            replace(row, sha256=sha256_file(path))
            for row, path in zip(collected.performances, paths, strict=True)
        ]
        write_table(building / CORPUS_TABLE, rows)
        settings = {"corpus": download.corpus, **collected.settings}
        write_manifest(building, kind=KIND, made_from=collected.made_from, settings=settings)
        size = sum(path.stat().st_size for path in paths)
    return {
        "corpus": download.corpus,
        "performances": len(rows),
        "files": len(paths),
        "bytes": size,
        **collected.figures,
    }


def _maestro_mini(_download: DownloadParams, to: Destination) -> Collected:
    rows = maestro_mini.write_mini(to.folder, cache=to.cache)
    return Collected(rows, made_from={maestro_mini.SDIST: maestro_mini.SDIST_SHA256})


def _maestro(download: DownloadParams, to: Destination) -> Collected:
    url, sha256 = download.maestro_url, download.maestro_sha256
    rows = maestro.write_maestro(to.folder, url=url, sha256=sha256, cache=to.cache)
    return Collected(rows, made_from={"maestro-v3.0.0": maestro.MANIFEST_SHA256})


def _synthetic(download: DownloadParams, to: Destination) -> Collected:
    count, seconds = download.synthetic_performances, download.synthetic_seconds
    seed = download.synthetic_seed
    rows = synthetic.write_synthetic(to.folder, performances=count, seconds=seconds, seed=seed)
    return Collected(rows, settings={"performances": count, "seconds": seconds, "seed": seed})


def _folder(_download: DownloadParams, to: Destination) -> Collected:
    music = own.write_folder(to.own_folder, to.folder)
    names = music.not_in_table
    surplus = {"not_in_table_named": names[:LISTED]} if names else {}
    figures = {"twins": music.twins, "not_in_table": len(names), **surplus}
    return Collected(music.performances, figures=figures)


CORPORA: dict[str, Callable[[DownloadParams, Destination], Collected]] = {
    "maestro-mini": _maestro_mini,
    "maestro": _maestro,
    "synthetic": _synthetic,
    "folder": _folder,
}
"""Value of download.corpus -> what collects that corpus."""
