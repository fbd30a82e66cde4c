"""Vocabulary of a tokenizer without miditok, for training, sampling and evaluation.

REMI (Huang and Yang 2020, "Pop Music Transformer") represents music as

    Bar  Position_6  Pitch_60 Velocity_67 Duration_0.12.24  Pitch_64 ...  Position_18 ...  Bar  Bar ...

A bar has a fixed duration. Each of these words is a base token; under byte-pair encoding an id is a sequence
of base tokens, listed in `pieces`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coma_gen.core.io import read_json, write_json

Ids = npt.NDArray[np.uint16]
FORBIDDEN = 65535
"""Entry of a shift table for an id whose shifted pitch is out of range."""
FILE = "vocabulary.json"
COMMON_TIME_STEP = 0.010
"""Resolution in seconds at which code lengths of different grids are compared."""
COMMON_VELOCITY_STEP = 4.0
VELOCITY_VALUES = 128


@dataclass(frozen=True)
class Vocabulary:
    """Ids and the grid that they refer to.

    Attributes:
        base: Base tokens "Type_Value" in the order of their ids.
        pieces: Base ids of each id; empty for an id that decodes to nothing.
        positions_per_second: Onset resolution.
        positions_per_bar: Length of a bar in positions.
        durations: Duration bins in positions, ascending, in the order of their ids.
        velocities: MIDI velocity of each velocity bin, ascending, in the order of their ids.
        pedal: "extend", "tokens" or "ignore".
    """

    base: tuple[str, ...]
    pieces: tuple[tuple[int, ...], ...]
    positions_per_second: int
    positions_per_bar: int
    durations: tuple[int, ...]
    velocities: tuple[int, ...]
    pedal: str

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def learned(self) -> bool:
        """Whether there are BPE ids beyond the base tokens."""
        return len(self.pieces) > len(self.base)

    @cached_property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return self.base.index("PAD_None")

    @cached_property
    def bos_id(self) -> int:
        """Id of the token at the beginning of a performance."""
        return self.base.index("BOS_None")

    @cached_property
    def eos_id(self) -> int:
        """Id of the token at the end of a performance."""
        return self.base.index("EOS_None")

    @cached_property
    def base_types(self) -> tuple[str, ...]:
        """Type of each base token: "Pitch" of "Pitch_60"."""
        return tuple(token.split("_")[0] for token in self.base)

    @cached_property
    def base_values(self) -> tuple[str, ...]:
        """Value of each base token as text: "60" of "Pitch_60", "None" if it has none."""
        return tuple(token.split("_")[1] for token in self.base)

    @cached_property
    def token_types(self) -> list[tuple[str, ...]]:
        """(V,) types of the base tokens of each id."""
        return [tuple(self.base_types[base] for base in piece) for piece in self.pieces]

    @cached_property
    def token_values(self) -> list[tuple[str, ...]]:
        """(V,) values of the base tokens of each id."""
        return [tuple(self.base_values[base] for base in piece) for piece in self.pieces]

    @cached_property
    def _flat(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Ids]:
        """Start and length of each id's base ids in the concatenation of all, and that concatenation."""
        sizes = np.array([len(piece) for piece in self.pieces], np.int64)
        flat = np.array([base for piece in self.pieces for base in piece], np.uint16)
        return np.cumsum(sizes) - sizes, sizes, flat

    def expanded(self, ids: npt.ArrayLike) -> Ids:
        """Expands ids (T,) to base ids (T',)."""
        starts, sizes, flat = self._flat
        index = np.asarray(ids, np.int64)
        counts = sizes[index]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        within = np.arange(total) - np.repeat(ends - counts, counts)
        return np.asarray(flat[np.repeat(starts[index], counts) + within], np.uint16)

    def span(self, kind: str) -> range:
        """Returns the range of base ids of a token type; empty if there are none.

        Raises:
            ValueError: If they are not consecutive, which does not occur in vocabularies of `Tokenizer`.
        """
        ids = [index for index, name in enumerate(self.base_types) if name == kind]
        if not ids:
            return range(0)
        if ids != list(range(ids[0], ids[-1] + 1)):
            raise ValueError(f"the ids of {kind} are not consecutive")
        return range(ids[0], ids[-1] + 1)

    @cached_property
    def pitch_range(self) -> tuple[int, int]:
        """Lowest and highest pitch, inclusive."""
        ids = self.span("Pitch")
        return int(self.base_values[ids[0]]), int(self.base_values[ids[-1]])

    @cached_property
    def duration_seconds(self) -> npt.NDArray[np.float64]:
        """(D,) duration bins in seconds."""
        return np.asarray(self.durations, np.float64) / self.positions_per_second

    @cached_property
    def duration_step_seconds(self) -> npt.NDArray[np.float64]:
        """(D,) width of each duration bin in seconds: half the distance between its neighbors."""
        if len(self.durations) == 1:
            return self.duration_seconds
        return np.asarray(np.gradient(self.duration_seconds), np.float64)

    @property
    def steps(self) -> dict[str, Any]:
        """Resolution of the grid in seconds and MIDI velocities."""
        return {
            "onset_step_s": 1 / self.positions_per_second,
            "duration_bins_s": self.duration_seconds,
            "duration_steps_s": self.duration_step_seconds,
            "velocity_step": VELOCITY_VALUES / len(self.velocities),
        }

    @cached_property
    def resolution_bits(self) -> npt.NDArray[np.float64]:
        """(V,) bits that each id adds at the common resolution of 10 ms and 4 velocities; 0 for most.

        A note adds log2(onset step / 10 ms) + log2(its duration step / 10 ms) + log2(velocity step / 4),
        which is attributed to its Duration token.
        """
        fixed = math.log2(1 / self.positions_per_second / COMMON_TIME_STEP)
        fixed += math.log2(VELOCITY_VALUES / len(self.velocities) / COMMON_VELOCITY_STEP)
        base = [0.0] * len(self.base)
        for index, step in zip(self.span("Duration"), self.duration_step_seconds, strict=True):
            base[index] = fixed + math.log2(step / COMMON_TIME_STEP)
        return np.array([math.fsum(base[index] for index in piece) for piece in self.pieces])

    def count_outside(self, pitch: npt.NDArray[np.uint8]) -> int:
        """Counts the pitches (N,) that have no token."""
        low, high = self.pitch_range
        return int(np.count_nonzero((pitch < low) | (pitch > high)))

    def total_resolution_bits(self, ids: npt.ArrayLike) -> float:
        """Sums `resolution_bits` over ids (T,), rounded to be identical on all machines."""
        counts = np.bincount(np.asarray(ids, np.int64), minlength=len(self))
        used = np.flatnonzero(counts)
        return round(math.fsum(int(counts[i]) * float(self.resolution_bits[i]) for i in used), 6)

    def shift_table(self, semitones: int, velocity_bins: int) -> Ids:
        """Returns the table (V,) from each id to its id after a transposition and a velocity shift.

        Pitches that leave the range become `FORBIDDEN`, velocities are clipped to the lowest and highest bin,
        and other ids map to themselves.

        Raises:
            ValueError: Under byte-pair encoding, where shifted ids need not exist.
        """
        if self.learned:
            raise ValueError("a shift table exists for base tokens only, not under byte-pair encoding")
        table = np.arange(len(self), dtype=np.int64)
        pitch, velocity = self.span("Pitch"), self.span("Velocity")
        moved = table[pitch.start : pitch.stop] + semitones
        table[pitch.start : pitch.stop] = np.where(
            (moved >= pitch.start) & (moved < pitch.stop), moved, FORBIDDEN
        )
        louder = table[velocity.start : velocity.stop] + velocity_bins
        table[velocity.start : velocity.stop] = np.clip(louder, velocity.start, velocity.stop - 1)
        return table.astype(np.uint16)

    def save(self, folder: Path) -> None:
        """Writes vocabulary.json to `folder`."""
        content = {
            "special_ids": {"pad": self.pad_id, "bos": self.bos_id, "eos": self.eos_id},
            "positions_per_second": self.positions_per_second,
            "positions_per_bar": self.positions_per_bar,
            "pedal": self.pedal,
            "durations_in_positions": " ".join(map(str, self.durations)),
            "velocities": " ".join(map(str, self.velocities)),
            "base": list(self.base),
            "learned": [" ".join(map(str, piece)) for piece in self.pieces[len(self.base) :]],
        }
        write_json(folder / FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Reads vocabulary.json from a tokenizer's folder.

        Raises:
            UserError: If the file is missing or not JSON.
        """
        return cls.from_json(read_json(folder / FILE))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Vocabulary:
        """Builds the vocabulary from the content of vocabulary.json."""
        base = tuple(content["base"])
        learned = tuple(_numbers(piece) for piece in content["learned"])
        return cls(
            base=base,
            pieces=tuple((index,) for index in range(len(base))) + learned,
            positions_per_second=int(content["positions_per_second"]),
            positions_per_bar=int(content["positions_per_bar"]),
            durations=_numbers(content["durations_in_positions"]),
            velocities=_numbers(content["velocities"]),
            pedal=str(content["pedal"]),
        )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())
