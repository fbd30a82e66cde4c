"""Grammar of encoded performances as arrays, for grammar-constrained decoding.

    start ─> Bar ─> Position ─> [PedalOff] [Pedal] ─> Pitch ─> Velocity ─> Duration ─┬─> Pitch (higher)
               ^                                                                     ├─> Position (later)
               └─────────────────────────────────────────────────────────────────────┴─> Bar, EOS

Positions increase within a bar, pitches increase within a position, and the pedal alternates between down and
up. These are miditok's type transitions (`tokens_types_graph`, which tests compare with), restricted to what
the encoder writes. A BPE id is allowed where all of its base tokens are; its effect is precomputed here.

A state is one integer: type of the last token, position in the bar, last pitch at that position, pedal.
Preconditions and effects of each id are arrays over the vocabulary, so there is no (state, token) table.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from coma_gen.tokenizer.vocabulary import Vocabulary

KINDS = ("START", "Bar", "Position", "Pitch", "Velocity", "Duration", "Pedal", "PedalOff", "EOS")
FOLLOWS: dict[str, tuple[str, ...]] = {
    "START": ("Bar", "EOS"),
    "Bar": ("Bar", "Position"),
    "Position": ("Pitch", "Pedal", "PedalOff"),
    "Pitch": ("Velocity",),
    "Velocity": ("Duration",),
    "Duration": ("Pitch", "Position", "Bar", "EOS"),
    "Pedal": ("Pitch", "Position", "Bar", "EOS"),
    "PedalOff": ("Pedal", "Pitch", "Position", "Bar", "EOS"),
    "EOS": (),
}
"""Allowed successors of each base token type; START is the state after BOS."""
NONE = -1
UNCHANGED = -2
_ANY = 1 << 20
_PITCHES = 129
_HIGHEST = 127

States = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Effect:
    """Precondition and effect of one id.

    Attributes:
        first: Type of the first base token; "" if the id is never allowed.
        before: The state's position must be less than this.
        below: The state's pitch must be less than this.
        pedal: Required pedal state, 0 or 1; NONE for any.
        last: Type of the last base token.
        position: Position after the id, or UNCHANGED.
        pitch: Pitch after the id, or UNCHANGED.
        pedal_after: Pedal state after the id, or UNCHANGED.
        bars: Number of bars that the id opens.
    """

    first: str
    before: int
    below: int
    pedal: int
    last: str
    position: int
    pitch: int
    pedal_after: int
    bars: int


class Grammar:
    """Allowed next tokens and state transitions, for one state or for arrays of states."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        effects = [_build_effect(vocabulary, index) for index in range(len(vocabulary))]
        kinds = {kind: index for index, kind in enumerate(KINDS)}
        self.vocabulary = vocabulary
        self._positions = vocabulary.positions_per_bar + 1
        self._legal: Flags = np.array(
            [[effect.first in FOLLOWS[kind] for effect in effects] for kind in KINDS]
        )
        self._before = _column(effects, "before")
        self._below = _column(effects, "below")
        self._pedal = _column(effects, "pedal")
        self._kind_after = np.array([kinds.get(effect.last, UNCHANGED) for effect in effects], np.int64)
        self._position_after = _column(effects, "position")
        self._pitch_after = _column(effects, "pitch")
        self._pedal_after = _column(effects, "pedal_after")
        self.bars: States = _column(effects, "bars")
        """(V,) number of bars that each id opens."""
        self.opens_bar: Flags = np.array([types[:1] == ("Bar",) for types in vocabulary.token_types])
        """(V,) whether each id begins with a Bar token."""
        self.is_bar: Flags = np.array([types == ("Bar",) for types in vocabulary.token_types])
        """(V,) whether each id is a single Bar token. No id has a Bar after its first base token."""

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Grammar:
        """Builds the grammar of a vocabulary."""
        return cls(vocabulary)

    @property
    def start_state(self) -> int:
        """State after BOS."""
        return int(self._pack(0, NONE, NONE, 0))

    def allowed(self, state: int | States) -> Flags:
        """Returns the mask (..., V) of ids allowed next in each state (...); none is after EOS."""
        kind, position, pitch, pedal = (part[..., None] for part in self._unpack(np.asarray(state)))
        legal = self._legal[kind[..., 0]] & (position < self._before) & (pitch < self._below)
        return np.asarray(legal & ((self._pedal == NONE) | (self._pedal == pedal)), np.bool_)

    def advance(self, state: int | States, token: int | States) -> Any:
        """Returns the state after a token in each state (...); a disallowed token has its effect, too."""
        index = np.asarray(token)
        parts = self._unpack(np.asarray(state))
        after = (self._kind_after, self._position_after, self._pitch_after, self._pedal_after)
        new = [
            np.where(column[index] == UNCHANGED, part, column[index])
            for part, column in zip(parts, after, strict=True)
        ]
        packed = self._pack(*new)
        return int(packed) if packed.ndim == 0 else packed

    def closed(self, state: int | States) -> Any:
        """Returns the state (...) in which no more notes are allowed at the current position."""
        kind, position, _, pedal = self._unpack(np.asarray(state))
        packed = self._pack(kind, position, _HIGHEST, pedal)
        return int(packed) if packed.ndim == 0 else packed

    def has_pedal_down(self, state: int | States) -> Any:
        """Returns whether the pedal is down in each state (...)."""
        return np.asarray(state) % 2 == 1

    def states(self, ids: npt.ArrayLike) -> States:
        """Returns the states (T + 1,) before each of ids (T,) and after the last; ignores a leading BOS."""
        index = np.asarray(ids, np.int64)
        parts = self._unpack(np.asarray(self.start_state))
        after = (self._kind_after, self._position_after, self._pitch_after, self._pedal_after)
        filled = [_forward_fill(column[index], int(part)) for part, column in zip(parts, after, strict=True)]
        return np.asarray(self._pack(*filled), np.int64)

    def invalid(self, ids: npt.ArrayLike) -> int:
        """Counts the ids of (T,) that are not allowed at their position; each still has its effect."""
        index = np.asarray(ids, np.int64)
        if len(index) and index[0] == self.vocabulary.bos_id:
            index = index[1:]
        kind, position, pitch, pedal = self._unpack(self.states(index)[:-1])
        legal = self._legal[kind, index] & (position < self._before[index]) & (pitch < self._below[index])
        legal &= (self._pedal[index] == NONE) | (self._pedal[index] == pedal)
        return int(np.count_nonzero(~legal))

    def seconds(self, ids: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Returns the time in seconds from the start of the music after each of ids (T,)."""
        index = np.asarray(ids, np.int64)
        return self.seconds_at(np.cumsum(self.bars[index]), self.states(index)[1:])

    def seconds_at(self, bars: int | States, state: int | States) -> npt.NDArray[np.float64]:
        """Returns the time in seconds from the start of the music, given the number of bars and the state."""
        _, position, _, _ = self._unpack(np.asarray(state))
        whole = np.maximum(np.asarray(bars) - 1, 0) * self.vocabulary.positions_per_bar
        return np.asarray(
            (whole + np.maximum(position, 0)) / self.vocabulary.positions_per_second, np.float64
        )

    def _pack(self, kind: Any, position: Any, pitch: Any, pedal: Any) -> States:
        rest = (np.asarray(kind) * self._positions + position + 1) * _PITCHES
        return np.asarray((rest + pitch + 1) * 2 + pedal, np.int64)

    def _unpack(self, state: States) -> tuple[States, States, States, States]:
        rest, pedal = np.divmod(state, 2)
        rest, pitch = np.divmod(rest, _PITCHES)
        kind, position = np.divmod(rest, self._positions)
        return kind, position - 1, pitch - 1, pedal


def _column(effects: list[_Effect], name: str) -> States:
    return np.array([getattr(effect, name) for effect in effects], np.int64)


def _forward_fill(changes: States, start: int) -> States:
    """Returns `start` and the latest value that is not UNCHANGED up to each index, (T + 1,)."""
    values = np.concatenate([[start], changes])
    latest = np.maximum.accumulate(np.where(values == UNCHANGED, 0, np.arange(len(values))))
    return np.asarray(values[latest], np.int64)


def _build_effect(vocabulary: Vocabulary, index: int) -> _Effect:
    """Combines the preconditions and effects of an id's base tokens."""
    types, values = vocabulary.token_types[index], vocabulary.token_values[index]
    before = below = _ANY
    needed, position, pitch, pedal, bars = NONE, UNCHANGED, UNCHANGED, UNCHANGED, 0
    possible = bool(types) and all(kind in KINDS for kind in types)
    for kind, following in pairwise(types):
        possible &= following in FOLLOWS.get(kind, ())
    for kind, value in zip(types, values, strict=True):
        if kind == "Bar":
            bars, position, pitch = bars + 1, NONE, NONE
        elif kind == "Position":
            before = int(value) if position == UNCHANGED else before
            possible &= position < int(value)
            position, pitch = int(value), NONE
        elif kind == "Pitch":
            below = int(value) if pitch == UNCHANGED else below
            possible &= pitch < int(value)
            pitch = int(value)
        elif kind in ("Pedal", "PedalOff"):
            is_press = int(kind == "Pedal")
            needed = 1 - is_press if pedal == UNCHANGED else needed
            possible &= pedal != is_press
            pedal = is_press
    if types == ("BOS",):
        return _Effect("", _ANY, _ANY, NONE, "START", NONE, NONE, 0, 0)
    first = types[0] if possible else ""
    last = types[-1] if types else ""
    return _Effect(first, before, below, needed, last, position, pitch, pedal, bars)
