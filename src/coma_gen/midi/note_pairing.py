"""Pairs note-on with note-off events by channel and key, across tracks.

Where every note has a release, notes end in the order in which they begin. If a release is missing, the
events are matched like brackets: the note whose bracket is never closed is the one without a release of its
own. It ends at the next release of its key, so that all other notes retain their ends. A note that no release
follows has no end.

Some programs write a note shorter than a tick with its release before it, at the same tick. A release that
has nothing to end is assigned to a later note at its tick if that note would otherwise have no release.

    on  on  off on  off         (  (  )  (  )       the first ends with the second
    on  on  off off             (  (  )  )          first in, first out
    off on, later on  off       )( (  )             the first has length 0

Formats: MIDI 1.0 (MIDI Manufacturers Association, 1996); channel mode messages end every note of a channel.
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
"""Controllers that release every key of their channel: all sound off, all notes off, mode changes."""

_Pairs = list[tuple[int, int, bool]]


class Pairs(NamedTuple):
    """The notes of a file, in the order in which they begin.

    Attributes:
        on: (N,) index of the event that begins each note.
        off: (N,) index of the event that ends it; -1 without an end.
        is_own: (N,) False where it ends with the release of another note.
    """

    on: Ticks
    off: Ticks
    is_own: npt.NDArray[np.bool_]


def pair_notes(stream: Stream) -> Pairs:
    """Finds the events that begin and end each note of a file."""
    events, group, closing = _group_by_key(stream)
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
        pairs = pair_key(stream.tick[indices].tolist(), is_on[part].tolist())
        begun, ended, is_own = np.array(pairs, np.int64).reshape(-1, 3).T
        on.append(indices[begun])
        off.append(np.where(ended < 0, closing[part][begun], indices[ended]))
        own.append((is_own > 0) | (ended < 0))
    begins = np.concatenate(on)
    order = np.argsort(begins)
    return Pairs(begins[order], np.concatenate(off)[order], np.concatenate(own)[order])


def _group_by_key(stream: Stream) -> tuple[Ticks, Ticks, Ticks]:
    """Groups note-on and note-off events by key, and by the events that silence their channel.

    Returns:
        (K,) event indices, sorted by group and then by time; (K,) the number of each group; (K,) the next
        event that silences the channel, -1 where there is none.
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


def pair_key(ticks: Sequence[int], is_on: Sequence[bool]) -> _Pairs:
    """Pairs the events of one key.

    Args:
        ticks: Ticks of its note-on and note-off events, ascending.
        is_on: Which of them are note-on events.

    Returns:
        For each note the indices of its beginning and its end (-1 for none), and whether the end is its own.
    """
    order = _sort_events(ticks, is_on, _count_early_releases(ticks, is_on))
    unmatched: list[int] = []
    for index in order:
        if is_on[index]:
            unmatched.append(index)
        elif unmatched:
            unmatched.pop()
    without = set(unmatched)
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


def _count_early_releases(ticks: Sequence[int], is_on: Sequence[bool]) -> dict[int, int]:
    """Counts for each tick the releases that end later notes at that tick: the minimum that gives the maximum
    number of notes a release.

    A release that has nothing to end is assigned to a later note at its tick. Where a later release is left
    over that has no such note either, the earliest assignment is undone, and the notes in between end one
    release later.
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


def _sort_events(ticks: Sequence[int], is_on: Sequence[bool], late: dict[int, int]) -> list[int]:
    """Sorts the events into their intended order: at each tick earlier notes end first, then notes begin, and
    releases that were written too early come last.
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
