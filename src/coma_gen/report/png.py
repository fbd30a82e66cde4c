"""PNG encoding band by band, so that a tall image needs memory for only one band.

Source: ISO/IEC 15948, Portable Network Graphics.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TRUE_COLOR, EIGHT_BIT, UP = 2, 8, 2
COMPRESSION = 6
METERS_PER_INCH = 0.0254


def encode_png(bands: Iterable[NDArray[np.uint8]], *, width: int, height: int, dpi: float) -> bytes:
    """Encodes an image as PNG from consecutive horizontal bands, top to bottom.

    Args:
        bands: RGB arrays (rows, width, 3) with `height` rows in total.
        width: Width in pixels.
        height: Height in pixels.
        dpi: Pixels per inch, for printing.

    Returns:
        The PNG file: true color, with no metadata except `dpi`.

    Raises:
        ValueError: If the bands do not add up to `width` by `height` pixels.
    """
    file = io.BytesIO()
    file.write(SIGNATURE)
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, EIGHT_BIT, TRUE_COLOR, 0, 0, 0))
    per_meter = round(dpi / METERS_PER_INCH)
    _write_chunk(file, b"pHYs", struct.pack(">IIB", per_meter, per_meter, 1))
    squeeze = zlib.compressobj(COMPRESSION)
    above, rows = np.zeros((1, width * 3), np.uint8), 0
    for band in bands:
        if band.shape[1:] != (width, 3):
            raise ValueError(f"a band of shape {band.shape} in a picture {width} pixels wide")
        lines = np.concatenate([above, band.reshape(len(band), width * 3)])
        filtered = np.empty((len(band), 1 + width * 3), np.uint8)
        filtered[:, 0] = UP
        np.subtract(lines[1:], lines[:-1], out=filtered[:, 1:])
        _write_chunk(file, b"IDAT", squeeze.compress(filtered.tobytes()))
        above, rows = lines[-1:].copy(), rows + len(band)
    if rows != height:
        raise ValueError(f"{rows} rows in a picture {height} pixels high")
    _write_chunk(file, b"IDAT", squeeze.flush())
    _write_chunk(file, b"IEND", b"")
    return file.getvalue()


def _write_chunk(file: io.BytesIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
