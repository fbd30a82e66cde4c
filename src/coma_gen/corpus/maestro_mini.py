"""The source "maestro-mini": ten performances of MAESTRO v3.0.0 (Hawthorne et al. 2019).

The source distribution of miditok 3.1.0 (Fradet et al. 2021) contains them unchanged, so they can be
downloaded from any package index; the rows below are from MAESTRO's table. Licensed CC BY-NC-SA 4.0: they are
downloaded, not redistributed here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import sha256_bytes, sha256_file
from coma_gen.corpus.archive import read_tar_gz
from coma_gen.corpus.download import WITHOUT_NETWORK
from coma_gen.corpus.table import Performance

SDIST = "miditok-3.1.0.tar.gz"
SDIST_SHA256 = "1f905b9be87a57dac28a86c1c7a7565674a5d2e57b2f650bc2fea97792f6bdef"
_MEMBER = re.compile(r"miditok-3\.1\.0/tests/MIDIs_one_track/Maestro_(\d+)\.mid")
_PIP_SECONDS = 600
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


class MiniRow(NamedTuple):
    """One of the ten performances: its number in the source distribution, and its row of MAESTRO's table."""

    number: int
    split: str
    composer: str
    title: str
    midi_filename: str
    duration: float
    sha256: str

    def performance(self) -> Performance:
        """Converts the row to a `Performance`."""
        audio = self.midi_filename.removesuffix(".midi") + ".wav"
        year = self.midi_filename.partition("/")[0]
        return Performance(
            self.composer,
            self.title,
            self.split,
            year,
            self.midi_filename,
            self.duration,
            self.sha256,
            audio_filename=audio,
        )


MINI = (
    MiniRow(
        1,
        "test",
        "Frédéric Chopin",
        "Nocturne in B Major, Op. 9, No. 3",
        "2009/MIDI-Unprocessed_02_R1_2009_03-06_ORIG_MID--AUDIO_02_R1_2009_02_R1_2009_03_WAV.midi",
        346.917388125,
        "de94744a9c06c2c133b6f81e7f08a8707eb8ba614a10c878dd9572fc1eb868c9",
    ),
    MiniRow(
        2,
        "train",
        "Franz Liszt",
        "Dante Sonata",
        "2009/MIDI-Unprocessed_05_R1_2009_01-02_ORIG_MID--AUDIO_05_R1_2009_05_R1_2009_02_WAV.midi",
        901.1743125,
        "df1ffec3f938dcca630761bb77bdf0a263e374b7da12a1b3efb3308c4c92d29f",
    ),
    MiniRow(
        3,
        "train",
        "Franz Schubert",
        "Sonata in B-flat Major, D. 962",
        "2009/MIDI-Unprocessed_10_R2_2009_01_ORIG_MID--AUDIO_10_R2_2009_10_R2_2009_03_WAV.midi",
        220.921253438,
        "cab488a8c7dec96882031342bd80b6c5dad6a930b5495b141622a86be6c552f1",
    ),
    MiniRow(
        4,
        "train",
        "Franz Schubert",
        "Sonata in B-flat Major, D. 963",
        "2009/MIDI-Unprocessed_10_R2_2009_01_ORIG_MID--AUDIO_10_R2_2009_10_R2_2009_04_WAV.midi",
        515.92897125,
        "2e96c191d000c3796f6a2ed5d3f1baf6f07825d60b40761aee953faaa4efc925",
    ),
    MiniRow(
        5,
        "train",
        "Ludwig van Beethoven",
        "Sonata No. 21 in  C Major, Op. 53",
        "2009/MIDI-Unprocessed_11_R1_2009_01-05_ORIG_MID--AUDIO_11_R1_2009_11_R1_2009_01_WAV.midi",
        1344.34026891,
        "8f3bd5b8a46fce764b56edbd63aba83b68d44f7b7057919e45245ab8bade9c7e",
    ),
    MiniRow(
        6,
        "train",
        "Franz Schubert",
        "Sonata in A Major, D. 959 (Complete)",
        "2014/MIDI-UNPROCESSED_04-07-08-10-12-15-17_R2_2014_MID--AUDIO_08_R2_2014_wav.midi",
        2341.60689984,
        "7d80076155faf6126d5f15d424dc064b44505422b2ad26952299c854d8cfb53d",
    ),
    MiniRow(
        7,
        "train",
        "Robert Schumann",
        "Symphonic Etudes, Op. 13",
        "2014/MIDI-UNPROCESSED_14-15_R1_2014_MID--AUDIO_15_R1_2014_wav--6.midi",
        1650.67409719,
        "e1665de32682a9207ec668963962373fe7d7cb730a55d03a1d2f2d559745f904",
    ),
    MiniRow(
        8,
        "validation",
        "Ludwig van Beethoven",
        "Sonata No. 11 in E-flat Major, Op. 22 (Complete)",
        "2014/MIDI-UNPROCESSED_16-18_R1_2014_MID--AUDIO_16_R1_2014_wav--2.midi",
        1320.41401078,
        "050d43da091000ead9b652d2d1cee06813b4d0a0cdd69b0b13ebf5fe67c7d39d",
    ),
    MiniRow(
        9,
        "train",
        "Ludwig van Beethoven",
        "Sonata No. 28 in A Major, Op. 101 (Complete)",
        "2014/MIDI-UNPROCESSED_16-18_R1_2014_MID--AUDIO_18_R1_2014_wav--2.midi",
        1098.92518313,
        "306f3e8ca0aeb1d7aa417e7afe10dfcc3583a9e1821c784fa14ce1a41ec5cb26",
    ),
    MiniRow(
        10,
        "train",
        "Giuseppe Verdi / Franz Liszt",
        "Rigoletto Parap.",
        "2006/MIDI-Unprocessed_15_R1_2006_01-05_ORIG_MID--AUDIO_15_R1_2006_04_Track04_wav.midi",
        423.490495313,
        "20e06e3e391c02fc8ad015b828cdd717d01e9e144da998d7a1c5a5d6dc482757",
    ),
)


def write_mini(folder: Path, *, cache: Path, run: Runner = subprocess.run) -> list[Performance]:
    """Writes the ten performances to `folder`, under their official names, and returns their rows.

    Args:
        folder: Folder to write.
        cache: Folder in which the source distribution is cached; a cached one needs no network.
        run: `subprocess.run`, or its replacement in tests.

    Raises:
        UserError: The package index cannot be reached, or its file is not the pinned one.
    """
    rows = {row.number: row for row in MINI}
    written = []
    for name, content in read_tar_gz(_fetch_sdist(cache, run)):
        match = _MEMBER.fullmatch(name)
        row = rows.pop(int(match[1]), None) if match else None
        if row is None:
            continue
        if sha256_bytes(content) != row.sha256:
            rule = f"must have the SHA-256 {row.sha256}"
            raise UserError(Fault(f"{SDIST}, {name}", rule, sha256_bytes(content)))
        path = folder / row.midi_filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written.append(row.performance())
    if rows:
        missing = ", ".join(str(number) for number in rows)
        raise UserError(Fault(SDIST, "must hold all ten performances", f"none of number {missing}"))
    return written


def _fetch_sdist(cache: Path, run: Runner) -> Path:
    """Returns the cached source distribution of miditok, downloaded with pip if necessary."""
    cached = cache / SDIST
    if cached.is_file() and sha256_file(cached) == SDIST_SHA256:
        return cached
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sdist.", dir=cache) as aside:
        requirement = Path(aside) / "requirement.txt"
        requirement.write_text(f"miditok==3.1.0 --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]
        command += ["--retries", "2", "--no-deps", "--no-binary", "miditok", "--require-hashes"]
        command += ["--dest", aside, "--requirement", str(requirement)]
        try:
            done = run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise _build_pip_fault(f"nothing within {_PIP_SECONDS} s") from None
        fetched = Path(aside) / SDIST
        if done.returncode != 0 or not fetched.is_file():
            raise _build_pip_fault(_find_last_line(f"{done.stdout}\n{done.stderr}"))
        if sha256_file(fetched) != SDIST_SHA256:
            raise UserError(Fault(SDIST, f"must have the SHA-256 {SDIST_SHA256}", sha256_file(fetched)))
        fetched.replace(cached)
    return cached


def _build_pip_fault(got: str) -> UserError:
    rule = "pip must be able to download miditok 3.1.0, which brings the performances, from its index"
    return UserError(Fault("download.corpus=maestro-mini", rule, got, WITHOUT_NETWORK))


def _find_last_line(output: str) -> str:
    """Returns the last error of pip's output, or its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["no word from pip"])[-1]
