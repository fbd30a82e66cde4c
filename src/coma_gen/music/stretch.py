"""Which events of a MIDI file belong to a stretch of its music.

    what is kept                          what is left out
    notes that begin in the stretch       drums; notes without an end; all other notes
    the pedal while their keys are down,  presses after that
    and then until it next rises
    everything else until both are over   everything after that, and what drums were told

Cut at the beginning, the stretch starts at the bar line before its first note, and what was set before
(tempo, programs, controls) is set there.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from coma_gen.errors import Fault, UserError
from coma_gen.music.clock import Clock
from coma_gen.music.sustain import DOWN_FROM, SUSTAIN
from coma_gen.music.track import (
    CONTROL,
    KEY_SIGNATURE,
    META,
    NOTE_OFF,
    NOTE_ON,
    TEMPO,
    TIME_SIGNATURE,
    TRACK_NAME,
    track_chunks,
    track_events,
)

DRUMS = 9
"""The channel of drums, counted from 0."""
OF_MUSIC = (TEMPO, TIME_SIGNATURE, KEY_SIGNATURE)
"""Meta events that say how the notes are to be read; the others are texts."""
_OF_TRACK = (TRACK_NAME, 0x20, 0x21)
_NUMBERED = (6, 38, *range(96, 102))
"""Controllers that set numbered parameters, in several messages that mean something in their order only."""


class Row(NamedTuple):
    """An event of a file."""

    tick: int
    track: int
    event: bytes

    @property
    def kind(self) -> int:
        """The kind of a channel message, 0xF0 for anything else."""
        return self.event[0] & 0xF0

    @property
    def channel(self) -> int:
        """The channel of a channel message; -1 for anything else."""
        return self.event[0] & 0x0F if self.event[0] < 0xF0 else -1

    @property
    def is_onset(self) -> bool:
        """Whether a note begins."""
        return self.kind == NOTE_ON and self.event[2] > 0

    @property
    def is_pedal(self) -> bool:
        """Whether it moves the sustain pedal."""
        return self.kind == CONTROL and self.event[1] == SUSTAIN


def rows_of(content: bytes) -> list[Row]:
    """Every event of a whole MIDI file, track by track."""
    return [
        Row(tick, number, event)
        for number, track in enumerate(track_chunks(content))
        for tick, event in track_events(track)
    ]


@dataclass(frozen=True)
class Stretch:
    """What of a file belongs to a stretch, its ticks those of the file.

    Attributes:
        kept: places of the events that belong to it.
        releases: events to be added: the pedal rises at the end, where nothing else lifts it.
        start: what becomes tick 0; events before it are settings that hold there.
        joint: where its last note begins.
        held: channels whose pedal is down there and left so; none where it is lifted.
        drum_notes: notes of drums that would have belonged to it.
    """

    kept: set[int]
    releases: tuple[Row, ...]
    start: int
    joint: int
    held: tuple[int, ...]
    drum_notes: int


def stretch_of(
    rows: list[Row],
    clock: Clock,
    *,
    name: str,
    from_second: float | None,
    seconds: float | None,
    open_pedal: bool,
) -> Stretch:
    """Chooses the events.

    Args:
        rows: of the file.
        clock: its tempo map.
        name: how faults call it.
        from_second: the stretch begins with the first note at or after this moment; None for the whole file's
            beginning.
        seconds: it ends this long after its first note; None for the file's end.
        open_pedal: a pedal that is down when the last note begins stays down.

    Raises:
        UserError: there is no note in the stretch.
    """
    chosen, drums = _chosen_notes(rows, clock, name, from_second, seconds)
    onsets = [rows[on].tick for on, _ in chosen]
    joint = max(onsets)
    start = 0 if from_second is None else _bar_line(rows, min(onsets), clock)
    released = max(rows[off].tick for _, off in chosen)
    pedal, held = _kept_pedal(rows, joint if open_pedal else released, open_pedal)
    end = max([released, *(rows[index].tick for index in pedal)])
    kept = {index for pair in chosen for index in pair} | pedal
    kept |= {index for index, row in enumerate(rows) if row.tick <= end and _is_setting(row)}
    releases = []
    if not open_pedal:
        for channel in _channels_down(rows[index] for index in in_time(rows, pedal)):
            track = max(rows[index].track for index in pedal if rows[index].channel == channel)
            releases.append(Row(end, track, bytes((CONTROL | channel, SUSTAIN, 0))))
    return Stretch(
        _chased(rows, kept, start), tuple(releases), start, joint, held if open_pedal else (), drums
    )


def _chosen_notes(
    rows: list[Row], clock: Clock, label: str, from_second: float | None, seconds: float | None
) -> tuple[list[tuple[int, int]], int]:
    """Where the notes of the stretch begin and end, and how many of drums are in it.

    Raises:
        UserError: there is none but of drums.
    """
    pairs = note_pairs(rows)
    played = [pair for pair in pairs if rows[pair[0]].channel != DRUMS]
    if not played:
        got = f"{len(pairs):,} of drums" if pairs else "none"
        raise UserError(Fault(label, "must have notes that are not drums", got))
    onset = clock.seconds(np.array([rows[on].tick for on, _ in pairs], np.int64))
    is_drum = np.array([rows[on].channel == DRUMS for on, _ in pairs])
    later = onset[~is_drum & (onset >= (from_second or 0.0))]
    if not len(later):
        last = f"its last note at {onset[~is_drum].max():.2f} s"
        raise UserError(Fault(label, f"must have a note at or after second {from_second:g}", last))
    inside = (onset >= later.min()) & (onset < later.min() + (np.inf if seconds is None else seconds))
    chosen = [pairs[index] for index in np.flatnonzero(inside & ~is_drum)]
    if from_second is None:
        inside |= onset < later.min()
    return chosen, int(np.count_nonzero(inside & is_drum))


def note_pairs(rows: list[Row]) -> list[tuple[int, int]]:
    """Where each note begins and ends; of notes of one key that overlap the first to begin ends first, as
    everywhere here. A note without an end is none.
    """
    sounding: dict[tuple[int, int, int], deque[int]] = defaultdict(deque)
    pairs = []
    for index, row in enumerate(rows):
        if row.kind not in (NOTE_ON, NOTE_OFF):
            continue
        begun = sounding[row.track, row.channel, row.event[1]]
        if row.is_onset:
            begun.append(index)
        elif begun:
            pairs.append((begun.popleft(), index))
    return pairs


def in_time(rows: list[Row], indices: Iterable[int]) -> list[int]:
    """In the order of time, the tracks of a file merged as a player merges them."""
    return sorted(sorted(indices), key=lambda index: rows[index].tick)


def _channels_down(rows: Iterable[Row]) -> list[int]:
    """The channels whose pedal is down after some events in the order of time."""
    value = {row.channel: row.event[2] for row in rows if row.is_pedal}
    return sorted(channel for channel, last in value.items() if last >= DOWN_FROM)


def _kept_pedal(rows: list[Row], last: int, open_pedal: bool) -> tuple[set[int], tuple[int, ...]]:
    """The movements of the pedal that are kept, and the channels where it is down at tick `last`."""
    moves = in_time(rows, (index for index, row in enumerate(rows) if row.is_pedal and row.channel != DRUMS))
    kept = {index for index in moves if rows[index].tick <= last}
    held = _channels_down(rows[index] for index in moves if index in kept)
    waiting = set() if open_pedal else set(held)
    for index in moves:
        if rows[index].tick > last and rows[index].channel in waiting:
            kept.add(index)
            if rows[index].event[2] < DOWN_FROM:
                waiting.remove(rows[index].channel)
    return kept, tuple(held)


def _is_setting(row: Row) -> bool:
    """Neither a note nor the pedal nor anything of drums."""
    return row.kind not in (NOTE_ON, NOTE_OFF) and not row.is_pedal and row.channel != DRUMS


def _bar_line(rows: list[Row], tick: int, clock: Clock) -> int:
    """The last bar line at or before a tick, by the time signatures of the file; 4/4 before the first."""
    begin, beats, power = 0, 4, 2
    for index in in_time(rows, range(len(rows))):
        row = rows[index]
        if row.tick <= tick and row.event[:3] == bytes((META, TIME_SIGNATURE, 4)):
            begin, beats, power = row.tick, row.event[3], row.event[4]
    bar = max(1, 4 * clock.resolution * max(1, beats) >> min(power, 16))
    return begin + (tick - begin) // bar * bar


def _chased(rows: list[Row], kept: set[int], start: int) -> set[int]:
    """What is kept, but of what stands before `start` only the settings that still hold there."""
    holding: dict[object, int] = {}
    for index in in_time(rows, (index for index in kept if rows[index].tick < start)):
        key = _setting_key(rows[index], index)
        if key is not None:
            holding[key] = index
    return {index for index in kept if rows[index].tick >= start} | set(holding.values())


def _setting_key(row: Row, index: int) -> object:
    """What an event sets, so that a later one of the same key takes its place; None for what passes."""
    first, second = row.event[:2]
    if first == META:
        return (META, second) if second in OF_MUSIC else (row.track, second) if second in _OF_TRACK else None
    if row.kind == 0xA0:
        return None
    if row.channel < 0 or (row.kind == CONTROL and second in _NUMBERED):
        return index
    return (first, second if row.kind == CONTROL else 0)
