"""Which release ends which note: the keys of each channel, whatever track strikes or releases them.

Where every note has its release, the first to begin ends first. A key whose release is missing heals: seen as
brackets, the note that nothing closes is the one without a release of its own, and it ends where its key is
next released, so that every other note keeps its own end. One that no release follows has no end.

A note shorter than a tick is written by some programs with its release before it, at one tick. A release that
has nothing to end belongs to a note behind it at its tick, if some note would else have none.

    on  on  off on  off         (  (  )  (  )       the first ends with the second
    on  on  off off             (  (  )  )          first in, first out
    off on, later on  off       )( (  )             the first lasts no time

Formats: MIDI 1.0 (MIDI Manufacturers Association, 1996); its mode messages end every note of a channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coma_gen.midi.pedal_events import Ticks
from coma_gen.midi.smf import Stream
from coma_gen.midi.smf_writer import CONTROL, NOTE_OFF, NOTE_ON

ALL_OFF = (120, 123, 124, 125, 126, 127)
"""Controllers that release every key of their channel: all sound off, all notes off, changes of mode."""

_Pairs = list[tuple[int, int, bool]]


class Pairs(NamedTuple):
    """The notes of a file, in the order in which they begin.

    Attributes:
        on: (N,) the event that each begins with.
        off: (N,) the event that it ends with; -1 for one without an end.
        is_own: (N,) whether that is not the release of another note.
    """

    on: Ticks
    off: Ticks
    is_own: npt.NDArray[np.bool_]


def note_pairs(stream: Stream) -> Pairs:
    """Where each note of a file begins and ends."""
    events, group, closing = _by_key(stream)
    is_on = (stream.kind[events] == NOTE_ON) & (stream.second[events] > 0)
    first = np.flatnonzero(np.append(True, group[1:] != group[:-1])) if len(group) else np.zeros(0, np.int64)
    number = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(group))))
    is_plain = is_on == ((np.arange(len(group)) - first[number]) % 2 == 0)
    odd = np.bincount(number[~is_plain], minlength=len(first)) > 0
    where = np.flatnonzero(is_on & ~odd[number])
    followed = np.append(group[1:] == group[:-1], False)[where]
    following = np.append(events, -1)[where + 1]
    on, off = [events[where]], [np.where(followed, following, closing[where])]
    own = [np.ones(len(where), bool)]
    bounds = np.append(first, len(group))
    for index in np.flatnonzero(odd).tolist():
        part = slice(bounds[index], bounds[index + 1])
        indices = events[part]
        pairs = paired(stream.tick[indices].tolist(), is_on[part].tolist())
        begun, ended, is_own = np.array(pairs, np.int64).reshape(-1, 3).T
        on.append(indices[begun])
        off.append(np.where(ended < 0, closing[part][begun], indices[ended]))
        own.append((is_own > 0) | (ended < 0))
    begins = np.concatenate(on)
    order = np.argsort(begins)
    return Pairs(begins[order], np.concatenate(off)[order], np.concatenate(own)[order])


def _by_key(stream: Stream) -> tuple[Ticks, Ticks, Ticks]:
    """The strikes and releases of each key between two moments at which its channel was silenced.

    Returns:
        (K,) events, key by key and each in the order of time; (K,) a number for each such segment; (K,) the
        event that silences the channel next, -1 where there is none.
    """
    kind = stream.kind
    silences = (kind == CONTROL) & np.isin(stream.first, ALL_OFF)
    chosen = np.flatnonzero((kind == NOTE_ON) | (kind == NOTE_OFF) | silences)
    chosen = chosen[np.argsort(stream.voice[chosen], kind="stable")]
    is_silence = silences[chosen]
    before = np.cumsum(is_silence)[~is_silence]
    silence = np.append(chosen[is_silence], -1)
    events = chosen[~is_silence]
    closing = silence[before]
    closing = (
        np.where(stream.voice[closing] == stream.voice[events], closing, -1)
        if len(silence) > 1
        else (np.full(len(events), -1))
    )
    key = (before * 2048 + stream.voice[events]) * 128 + stream.first[events]
    order = np.argsort(key, kind="stable")
    return events[order], key[order], closing[order]


def paired(ticks: Sequence[int], is_on: Sequence[bool]) -> _Pairs:
    """Where each note of one key begins and ends, and whether by a release of its own.

    Args:
        ticks: of its strikes and releases, in the order of time.
        is_on: which of them are strikes.

    Returns:
        indices of beginnings and ends, -1 for no end.
    """
    order = _in_order(ticks, is_on, _late(ticks, is_on))
    unclosed: list[int] = []
    for index in order:
        if is_on[index]:
            unclosed.append(index)
        elif unclosed:
            unclosed.pop()
    without = set(unclosed)
    pairs: _Pairs = []
    sounding: deque[int] = deque()
    borrowing: list[int] = []
    for index in order:
        if is_on[index]:
            (borrowing if index in without else sounding).append(index)
            continue
        pairs += [(on, index, False) for on in borrowing]
        borrowing.clear()
        if sounding:
            pairs.append((sounding.popleft(), index, True))
    return pairs + [(on, -1, False) for on in borrowing]


def _late(ticks: Sequence[int], is_on: Sequence[bool]) -> dict[int, int]:
    """How many releases of a tick end notes that stand behind them at that tick: as few as give as many notes
    as can be a release.

    A release that has nothing to end is taken for a note behind it; where a later one is left over that has
    neither, the earliest that was taken so is given back, and the notes in between end one release later.
    """
    sounding = given_back = first = 0
    taken: list[tuple[int, int, int]] = []
    for tick, indices in groupby(range(len(ticks)), key=ticks.__getitem__):
        stray = 0
        for index in indices:
            if is_on[index]:
                sounding += 1
            elif sounding:
                sounding -= 1
            else:
                stray += 1
        late = min(stray, sounding)
        sounding -= late
        for _ in range(stray - late):
            while first < len(taken) and taken[first][1] <= given_back - taken[first][2]:
                first += 1
            if first == len(taken):
                break
            given_back += 1
        if late:
            taken.append((tick, late, given_back))
    return {tick: late - given_back + back for tick, late, back in taken if late > given_back - back}


def _in_order(ticks: Sequence[int], is_on: Sequence[bool], late: dict[int, int]) -> list[int]:
    """The indices in the order in which they are meant: at one tick earlier notes end, then notes begin, and
    the last to come are the releases that were written too early.
    """
    order: list[int] = []
    sounding = 0
    for tick, group in groupby(range(len(ticks)), key=ticks.__getitem__):
        indices = list(group)
        releases = [index for index in indices if not is_on[index]]
        early, rest = releases[:sounding], releases[sounding:]
        moved = rest[: late.get(tick, 0)]
        apart = {*early, *moved}
        order += early + [index for index in indices if index not in apart] + moved
        sounding = max(0, sounding + len(indices) - 2 * len(releases))
    return order
