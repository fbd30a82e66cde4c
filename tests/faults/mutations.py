"""Changes of bytes as accidents and attackers make them."""

from __future__ import annotations

import random

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

TELLING = (0, 1, 0x2F, 0x7F, 0x80, 0x90, 0xB0, 0xC0, 0xF0, 0xF7, 0xFF)
"""Bytes that mean something in some format."""

NUMBERS = (b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80\0\0\0")
CHANGES = ("bit", "byte", "number", "insert", "drop", "double", "move", "cut")


def mutated(*contents: bytes) -> SearchStrategy[bytes]:
    """One of the contents with one to eight changes: bytes changed, added, left out, doubled, moved, cut off.

    Hypothesis draws a seed and no more, which is many times faster than to let it draw each change.
    """
    seeds = st.integers(0, 2**63 - 1)
    return st.tuples(st.sampled_from(contents), seeds).map(lambda pair: changed(*pair))


def changed(content: bytes, seed: int) -> bytes:
    """The content with the changes of that seed."""
    dice, data = random.Random(seed), bytearray(content)
    for _ in range(dice.randint(1, 8)):
        if not data:
            break
        kind, at, length = dice.choice(CHANGES), dice.randrange(len(data)), dice.randint(1, 40)
        value = dice.choice(TELLING) if dice.random() < 0.5 else dice.randrange(256)
        if kind == "bit":
            data[at] ^= 1 << value % 8
        elif kind == "byte":
            data[at] = value
        elif kind == "number":
            data[at : at + 4] = dice.choice(NUMBERS)
        elif kind == "insert":
            data[at:at] = bytes([value]) * (length % 9)
        elif kind == "drop":
            del data[at : at + length]
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "move":
            part = data[at : at + length]
            del data[at : at + length]
            to = dice.randint(0, len(data))
            data[to:to] = part
        elif dice.random() < 0.25:
            del data[at:]
    return bytes(data)
