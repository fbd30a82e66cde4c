"""A SoundFont 2 file of one looped sine wave, which every key of every channel's first program plays."""

from __future__ import annotations

import struct

import numpy as np

RATE = 44_100
HERTZ = 441.0
KEY = 69
LOOP_MODE, SAMPLE, INSTRUMENT = 54, 53, 41
"""Generators, by their numbers in the SoundFont 2.01 specification."""


def tiny_soundfont(*, loud: float) -> bytes:
    """The file.

    Args:
        loud: amplitude of the wave, 0 to 1.
    """
    wave = np.rint(loud * 32_767 * np.sin(2 * np.pi * HERTZ / RATE * np.arange(RATE))).astype("<i2")
    silence = bytes(2 * 46)  # the specification asks for 46 samples behind each
    head = _chunk(b"ifil", struct.pack("<HH", 2, 1)) + _chunk(b"isng", b"EMU8000\0")
    head += _chunk(b"INAM", b"tiny\0\0")
    preset, end = (
        struct.pack("<20sHHHIII", name, 0, 0, bag, 0, 0, 0) for name, bag in ((b"sine", 0), (b"EOP", 1))
    )
    bags = struct.pack("<HH", 0, 0) + struct.pack("<HH", 1, 0)
    instrument = struct.pack("<20sH", b"sine", 0) + struct.pack("<20sH", b"EOI", 1)
    zones = struct.pack("<HH", 0, 0) + struct.pack("<HH", 2, 0)
    played = struct.pack("<HHHHHH", LOOP_MODE, 1, SAMPLE, 0, 0, 0)
    period = round(RATE / HERTZ)
    sample = struct.pack("<20sIIIIIBbHH", b"sine", 0, RATE, 0, period * 400, RATE, KEY, 0, 0, 1)
    parts = {
        b"phdr": preset + end,
        b"pbag": bags,
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HHHH", INSTRUMENT, 0, 0, 0),
        b"inst": instrument,
        b"ibag": zones,
        b"imod": bytes(10),
        b"igen": played,
        b"shdr": sample + struct.pack("<20s26x", b"EOS"),
    }
    lists = (
        b"INFO" + head,
        b"sdta" + _chunk(b"smpl", wave.tobytes() + silence),
        b"pdta" + b"".join(_chunk(name, part) for name, part in parts.items()),
    )
    return _chunk(b"RIFF", b"sfbk" + b"".join(_chunk(b"LIST", each) for each in lists))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
