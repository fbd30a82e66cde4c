"""Writers of sound files, one per format, in the table `AUDIO_WRITERS`.

Every format is written in blocks, in constant memory, and byte-stable. WAV is written with the standard
library, the other formats with libsndfile.
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
"""Serial number of the Ogg stream, in place of libsndfile's random one."""
SMALL, SMALL_BLOCK = 0.9, 65_536
"""Compression from 0 (best quality) to 1 (smallest file), and samples per block, which libsndfile buffers."""
_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class AudioWriter:
    """Writer of one format.

    Attributes:
        write: Function of path, (n, channels) blocks of 16-bit samples, samples per second, and channels.
        media_type: MIME type of the format.
    """

    write: Callable[[Path, Iterable[Pcm], int, int], None]
    media_type: str


def write_blocks(path: Path, blocks: Iterable[Pcm], *, sample_rate: int, channels: int) -> None:
    """Writes (n, channels) blocks atomically, in the format of the file's suffix.

    Raises:
        UserError: The format is unknown.
    """
    writer = AUDIO_WRITERS.get(path.suffix.lower().removeprefix("."))
    if writer is None:
        endings = " or ".join(f".{name}" for name in AUDIO_WRITERS)
        raise UserError(
            Fault(str(path), f"a sound file's name must end in {endings}", path.suffix or "no suffix")
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
            # libsndfile 1.2.2 writes noise when MP3 is given 16-bit samples instead of floats
            file.write(block if kind == "FLAC" else block / FULL_SCALE)


def small_ogg(pcm: Pcm, *, sample_rate: int) -> bytes:
    """Encodes (n, channels) samples as Ogg Vorbis at a low bit rate, for pages and committed files."""
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
    """Writes Ogg Vorbis with a fixed serial number, so that it is byte-stable."""
    _write_by_libsndfile(
        path, blocks, sample_rate, channels, kind="OGG", subtype="VORBIS", compression=compression
    )
    with path.open("r+b") as file:
        while len(head := file.read(27)) == 27:
            lengths = file.read(head[26])
            body = file.read(sum(lengths))
            page = head[:14] + OGG_SERIAL + head[18:22] + bytes(4) + head[26:] + lengths + body
            file.seek(-len(page), os.SEEK_CUR)
            file.write(page[:22] + _compute_ogg_checksum(page) + page[26:])


def _compute_ogg_checksum(page: bytes) -> bytes:
    """Computes the checksum of an Ogg page (RFC 3533) whose checksum field is zero.

    It is zlib's CRC with the bits of every byte and of the sum reversed, and without zlib's complements.
    """
    reversed_sum = zlib.crc32(page.translate(_BIT_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return reversed_sum.to_bytes(4, "big").translate(_BIT_REVERSED)


AUDIO_WRITERS = {
    "flac": AudioWriter(partial(_write_by_libsndfile, kind="FLAC", subtype="PCM_16"), "audio/flac"),
    "wav": AudioWriter(_write_wav, "audio/wav"),
    "mp3": AudioWriter(partial(_write_by_libsndfile, kind="MP3", subtype="MPEG_LAYER_III"), "audio/mpeg"),
    "ogg": AudioWriter(_write_ogg, "audio/ogg"),
}
"""File suffix -> writer; the first is the default."""
