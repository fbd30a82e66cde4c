"""Selects the events of a MIDI file that belong to a passage.

    selected                              dropped
    notes that begin in the passage,      all other notes; melodic notes without an end
    including drums
    the pedal while their keys are down,  later presses
    and until its next release
    everything else until both are over   everything after that

If the beginning is cut, the passage starts at the bar line before its first note, and the settings in effect
there (tempo, programs, controls) are set there. Notes that end with the release of another note, or before
they begin, get a release of their own, so that dropping other events does not change them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coma_gen.core.errors import Fault, UserError
from coma_gen.midi.note_pairing import ALL_OFF
from coma_gen.midi.pedal_events import DOWN_FROM, RESET, SUSTAIN
from coma_gen.midi.smf import MidiEvent
from coma_gen.midi.smf_writer import (
    CONTROL,
    KEY_SIGNATURE,
    META,
    NOTE_OFF,
    NOTE_ON,
    PORT,
    TEMPO,
    TIME_SIGNATURE,
    TRACK_NAME,
)
from coma_gen.midi.song import Song, describe_missing_notes
from coma_gen.midi.tempo_map import TempoMap

OF_MUSIC = (TEMPO, TIME_SIGNATURE, KEY_SIGNATURE)
"""Meta events with musical meaning; the others are texts."""
_OF_TRACK = (TRACK_NAME, 0x20, PORT)
_NUMBERED = (6, 38, *range(96, 102))
"""Controllers of (N)RPN messages, whose meaning depends on their order."""
_UNDONE_BY_RESET = (1, 2, 4, 11, *range(64, 70))
"""Controllers that "reset all controllers" resets, as well as pitch bend and pressure (RP-015)."""
_BEND, _PRESSURE = 0xE0, 0xD0


@dataclass(frozen=True)
class MidiSlice:
    """The events of a passage, in ticks of the file.

    Attributes:
        events: Events of the passage, sorted by time.
        releases: Events to add: ends of notes that have none of their own, and the release of a pedal that
            nothing else releases.
        start: Tick that becomes 0; earlier events are settings in effect there.
        prompt_end: Tick of the last onset.
        held: Voices whose pedal is down there and left down.
        drum_notes: Number of drum notes in the passage.
        endless_notes: Number of other notes dropped because they have no end.
    """

    events: tuple[MidiEvent, ...]
    releases: tuple[MidiEvent, ...]
    start: int
    prompt_end: int
    held: tuple[int, ...]
    drum_notes: int
    endless_notes: int


def slice_song(
    song: Song,
    *,
    name: str,
    from_second: float | None = None,
    seconds: float | None = None,
    until_second: float | None = None,
    open_pedal: bool = False,
) -> MidiSlice:
    """Selects the events of a passage.

    Args:
        song: The file.
        name: Name of the file in errors.
        from_second: The passage begins with the first note at or after this time; None for the beginning of
            the file.
        seconds: Length of the passage from its first note; None for the end of the file.
        until_second: The passage ends before this time of the file; None for the end of the file.
        open_pedal: Leave a pedal that is down at the last onset down.

    Raises:
        UserError: The passage has no notes.
    """
    rows, tick = song.stream.rows, song.stream.tick
    inside = _select_notes(song, name, from_second, seconds, until_second)
    chosen = inside & (song.has_end | song.is_drum)
    pairs = list(zip(song.pairs.on[chosen].tolist(), song.pairs.off[chosen].tolist(), strict=True))
    onsets = tick[song.pairs.on[inside & song.has_end & ~song.is_drum]].tolist()
    first, prompt_end = onsets[0], onsets[-1]
    released = int(tick[np.maximum(song.pairs.on, song.pairs.off)[chosen]].max())
    pedal, held = _select_pedal(song, prompt_end if open_pedal else released, open_pedal)
    end = max([released, *(rows[index].tick for index in pedal)])
    notes, releases = _select_note_events(rows, pairs)
    settings = _select_settings(song, end)
    if open_pedal and held:  # a reset would release the pedal
        settings -= {index for index in settings if rows[index].tick > prompt_end and _is_reset(rows[index])}
    selected = notes | pedal | settings
    if not open_pedal:
        for voice in _find_voices_down(song, pedal):
            last = max(index for index in pedal if rows[index].voice == voice)
            lift = bytes((CONTROL | voice & 0x0F, SUSTAIN, 0))
            releases.append(rows[last]._replace(tick=end, event=lift))
    start = 0 if from_second is None else _find_bar_line(rows, first, song.clock)
    return MidiSlice(
        events=tuple(rows[index] for index in _chase_settings(rows, selected, start)),
        releases=tuple(releases),
        start=start,
        prompt_end=prompt_end,
        held=held if open_pedal else (),
        drum_notes=int(np.count_nonzero(inside & song.is_drum)),
        endless_notes=int(np.count_nonzero(inside & ~song.has_end & ~song.is_drum)),
    )


def _select_notes(
    song: Song,
    label: str,
    from_second: float | None,
    seconds: float | None,
    until_second: float | None,
) -> npt.NDArray[np.bool_]:
    """Returns a mask (N,) of the notes that begin in the passage, including drums.

    Raises:
        UserError: There are none other than drums and notes without an end.
    """
    played = song.has_end & ~song.is_drum
    if not played.any():
        raise UserError(Fault(label, "must have notes that are not drums", describe_missing_notes(song)))
    onset = song.clock.seconds(song.stream.tick[song.pairs.on])
    later = onset[played & (onset >= (from_second or 0.0))]
    if not len(later):
        last = f"its last note at {onset[played].max():.2f} s"
        raise UserError(Fault(label, f"must have a note at or after second {from_second:g}", last))
    first = later.min()
    if until_second is not None and first >= until_second:
        got = f"its first note there at {first:.2f} s"
        raise UserError(Fault(label, f"must have a note before second {until_second:g}", got))
    end = first + seconds if seconds is not None else np.inf
    inside = onset < min(end, np.inf if until_second is None else until_second)
    return np.asarray(inside if from_second is None else inside & (onset >= first))


def _select_note_events(
    rows: list[MidiEvent], pairs: list[tuple[int, int]]
) -> tuple[set[int], list[MidiEvent]]:
    """Returns the events that begin and end notes, and ends to add (none for drum notes without an end)."""
    selected: set[int] = set()
    added = []
    for on, off in pairs:
        selected.add(on)
        if off < 0:
            continue
        if off > on and off not in selected and rows[off].kind != CONTROL:
            selected.add(off)
        else:
            end = bytes((NOTE_OFF | rows[on].channel, rows[on].event[1], 0))
            added.append(rows[on]._replace(tick=rows[off].tick, event=end))
    return selected, added


def _is_reset(row: MidiEvent) -> bool:
    """Whether the event resets all controllers, which releases the pedal."""
    return row.kind == CONTROL and row.event[1] == RESET


def _find_voices_down(song: Song, selected: Iterable[int]) -> list[int]:
    """Returns the voices whose pedal is down after the selected pedal events."""
    found, value = song.pedal_moves
    chosen = np.isin(found, np.array(list(selected), np.int64))
    last = dict(zip(song.stream.voice[found[chosen]].tolist(), value[chosen].tolist(), strict=True))
    return sorted(voice for voice, value in last.items() if value >= DOWN_FROM)


def _select_pedal(song: Song, last: int, open_pedal: bool) -> tuple[set[int], tuple[int, ...]]:
    """Selects pedal events; also returns the voices whose pedal is down at tick `last`."""
    found, values = song.pedal_moves
    tick, voice = song.stream.tick[found], song.stream.voice[found]
    selected = set(found[tick <= last].tolist())
    held = tuple(_find_voices_down(song, selected))
    waiting = set() if open_pedal else set(held)
    for index, at, of, value in zip(*(each.tolist() for each in (found, tick, voice, values)), strict=True):
        if at > last and of in waiting:
            selected.add(index)
            if value < DOWN_FROM:
                waiting.remove(of)
    return selected, held


def _select_settings(song: Song, end: int) -> set[int]:
    """Selects all events up to a tick that are neither notes nor effective pedal events."""
    stream, kind = song.stream, song.stream.kind
    is_note = (kind == NOTE_ON) | (kind == NOTE_OFF)
    is_pedal = (kind == CONTROL) & (stream.first == SUSTAIN) & ~song.is_drum_event
    return set(np.flatnonzero(~is_note & ~is_pedal & (stream.tick <= end)).tolist())


def _find_bar_line(rows: list[MidiEvent], tick: int, clock: TempoMap) -> int:
    """Finds the last bar line at or before a tick by the file's time signatures; 4/4 before the first."""
    begin, beats, power = 0, 4, 2
    for row in rows:
        if row.tick <= tick and row.event[:3] == bytes((META, TIME_SIGNATURE, 4)):
            begin, beats, power = row.tick, row.event[3], row.event[4]
    bar = max(1, 4 * clock.resolution * max(1, beats) >> min(power, 16))
    return begin + (tick - begin) // bar * bar


def _chase_settings(rows: list[MidiEvent], selected: set[int], start: int) -> list[int]:
    """Sorts the selected events by time; before `start`, keeps only settings still in effect there."""
    active: dict[object, int] = {}
    for index in sorted(selected):
        row = rows[index]
        if row.tick >= start:
            continue
        if _is_reset(row):  # settings that a reset undoes are dropped instead
            for number in _UNDONE_BY_RESET:
                active.pop((row.port, CONTROL | row.channel, number), None)
            for kind in (_BEND, _PRESSURE):
                active.pop((row.port, kind | row.channel, 0), None)
        elif (key := _get_setting_key(row, index)) is not None:
            active[key] = index
    return sorted({index for index in selected if rows[index].tick >= start} | set(active.values()))


def _get_setting_key(row: MidiEvent, index: int) -> object:
    """Returns the key of the setting that an event changes (a later event replaces it); None for others."""
    first, second = row.event[:2]
    if first == META:
        return (META, second) if second in OF_MUSIC else (row.track, second) if second in _OF_TRACK else None
    if row.kind == 0xA0 or (row.kind == CONTROL and second in ALL_OFF):
        return None
    if row.channel < 0 or (row.kind == CONTROL and second in _NUMBERED):
        return index
    return (row.port, first, second if row.kind == CONTROL else 0)
