"""Sound files, a writer for each format: `AUDIO_WRITERS` is all that the rest knows of formats.

Every format is written in blocks, so that an hour takes no more memory than a minute, and the same sound
gives the same bytes. Formats: WAV by the standard library, the others by libsndfile.
"""

from __future__ import annotations

import os
import tempfile
import wave
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from coma_gen.core.errors import Fault, UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pcm = npt.NDArray[np.int16]

MAX_WAV_BYTES = 2**32 - 2**16
FULL_SCALE = 32_768.0
OGG_SERIAL = b"coma"
"""Names the stream in an Ogg file; libsndfile draws another one each time."""
SMALL, SMALL_BLOCK = 0.9, 65_536
"""Of 0 (the best) to 1 (the smallest); and samples that libsndfile is given at a time, which it keeps."""
_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class AudioWriter:
    """How one format is written.

    Attributes:
        write: takes a path, (n, channels) blocks of 16-bit samples, samples per second, and channels.
        media_type: what browsers call the format.
    """

    write: Callable[[Path, Iterable[Pcm], int, int], None]
    media_type: str


def write_blocks(path: Path, blocks: Iterable[Pcm], *, sample_rate: int, channels: int) -> None:
    """Writes (n, channels) blocks as a file of the format that its name ends in, atomically.

    Raises:
        UserError: no format is called so.
    """
    writer = AUDIO_WRITERS.get(path.suffix.lower().removeprefix("."))
    if writer is None:
        endings = " or ".join(f".{name}" for name in AUDIO_WRITERS)
        raise UserError(
            Fault(str(path), f"a sound file's name must end in {endings}", path.suffix or "no ending")
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".sound.", dir=path.parent) as folder:
        partial_file = Path(folder) / path.name
        writer.write(partial_file, blocks, sample_rate, channels)
        partial_file.replace(path)


def _write_wav(path: Path, blocks: Iterable[Pcm], sample_rate: int, channels: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        written = 0
        for block in blocks:
            written += block.nbytes
            if written > MAX_WAV_BYTES:
                raise UserError(Fault(path.name, "a .wav file holds at most 4 GiB", "more", "write a .flac"))
            file.writeframesraw(block.astype("<i2").tobytes())


def _write_by_libsndfile(
    path: Path,
    blocks: Iterable[Pcm],
    sample_rate: int,
    channels: int,
    *,
    kind: str,
    subtype: str,
    compression: float | None = None,
) -> None:
    import soundfile  # loads libsndfile, which a .wav does without

    with soundfile.SoundFile(
        os.fsencode(path), "w", sample_rate, channels, subtype, format=kind, compression_level=compression
    ) as file:
        for block in blocks:
            # its writer of MP3 (1.2.2) makes noise of 16-bit samples, and none of floats
            file.write(block if kind == "FLAC" else block / FULL_SCALE)


def small_ogg(pcm: Pcm, *, sample_rate: int) -> bytes:
    """(n, channels) samples as an Ogg Vorbis file of a low bit rate: for pages, and for what is committed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.ogg"
        blocks = (pcm[first : first + SMALL_BLOCK] for first in range(0, len(pcm), SMALL_BLOCK))
        _write_ogg(path, blocks, sample_rate, pcm.shape[1], compression=SMALL)
        return path.read_bytes()


def _write_ogg(
    path: Path,
    blocks: Iterable[Pcm],
    sample_rate: int,
    channels: int,
    compression: float | None = None,
) -> None:
    """Ogg Vorbis, its stream's random number replaced, so that the same sound gives the same bytes."""
    _write_by_libsndfile(
        path, blocks, sample_rate, channels, kind="OGG", subtype="VORBIS", compression=compression
    )
    with path.open("r+b") as file:
        while len(head := file.read(27)) == 27:
            lengths = file.read(head[26])
            body = file.read(sum(lengths))
            page = head[:14] + OGG_SERIAL + head[18:22] + bytes(4) + head[26:] + lengths + body
            file.seek(-len(page), os.SEEK_CUR)
            file.write(page[:22] + _ogg_checksum(page) + page[26:])


def _ogg_checksum(page: bytes) -> bytes:
    """The checksum of an Ogg page (RFC 3533) whose own bytes are zero.

    It is zlib's CRC with every byte, and the sum, read from its other end, and without zlib's complements.
    """
    reversed_sum = zlib.crc32(page.translate(_BIT_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reversed_sum.to_bytes(4, "big").translate(_BIT_REVERSED)


AUDIO_WRITERS = {
    "flac": AudioWriter(partial(_write_by_libsndfile, kind="FLAC", subtype="PCM_16"), "audio/flac"),
    "wav": AudioWriter(_write_wav, "audio/wav"),
    "mp3": AudioWriter(partial(_write_by_libsndfile, kind="MP3", subtype="MPEG_LAYER_III"), "audio/mpeg"),
    "ogg": AudioWriter(_write_ogg, "audio/ogg"),
}
"""How sound is written, by the ending of the file's name; the first is what is written by default."""
