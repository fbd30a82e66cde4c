"""Which events of a MIDI file belong to a passage of its music.

    what is kept                          what is left out
    notes that begin in the passage,      all other notes; notes without an end, but of drums
    drums too
    the pedal while their keys are down,  presses after that
    and then until it next rises
    everything else until both are over   everything after that

Cut at the beginning, the passage starts at the bar line before its first note, and what was set before
(tempo, programs, controls) is set there. Notes that ended with another of their key, or before they began,
get a release of their own, so that they stay as they were read whatever is left out around them.
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
from coma_gen.midi.song import Song, without_notes
from coma_gen.midi.tempo_map import TempoMap

OF_MUSIC = (TEMPO, TIME_SIGNATURE, KEY_SIGNATURE)
"""Meta events that say how the notes are to be read; the others are texts."""
_OF_TRACK = (TRACK_NAME, 0x20, PORT)
_NUMBERED = (6, 38, *range(96, 102))
"""Controllers that set numbered parameters, in several messages that mean something in their order only."""
_UNDONE_BY_RESET = (1, 2, 4, 11, *range(64, 70))
"""Controllers that a reset of all controllers sets back, beside the pitch bend and pressure (RP-015)."""
_BEND, _PRESSURE = 0xE0, 0xD0


@dataclass(frozen=True)
class MidiSlice:
    """What of a file belongs to a passage, its ticks those of the file.

    Attributes:
        selected: the events that belong to it, in the order of time.
        releases: events to be added: ends of notes that have none of their own, and the pedal that rises at
            the end, where nothing else lifts it.
        start: what becomes tick 0; events before it are settings that hold there.
        prompt_end: where its last note begins.
        held: voices whose pedal is down there and left so; none where it is lifted.
        drum_notes: how many notes of drums belong to it.
        endless_notes: how many others would, had they an end.
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
    """Chooses the events.

    Args:
        song: the file.
        name: how faults call it.
        from_second: the passage begins with the first note at or after this time; None for the whole file's
            beginning.
        seconds: it ends this long after its first note; None for the file's end.
        until_second: it ends before this time of the file; None for the file's end.
        open_pedal: a pedal that is down when the last note begins stays down.

    Raises:
        UserError: there is no note in the passage.
    """
    rows, tick = song.stream.rows, song.stream.tick
    inside = _inside(song, name, from_second, seconds, until_second)
    chosen = inside & (song.has_end | song.is_drum)
    pairs = list(zip(song.pairs.on[chosen].tolist(), song.pairs.off[chosen].tolist(), strict=True))
    onsets = tick[song.pairs.on[inside & song.has_end & ~song.is_drum]].tolist()
    first, prompt_end = onsets[0], onsets[-1]
    released = int(tick[np.maximum(song.pairs.on, song.pairs.off)[chosen]].max())
    pedal, held = _select_pedal(song, prompt_end if open_pedal else released, open_pedal)
    end = max([released, *(rows[index].tick for index in pedal)])
    notes, releases = _with_own_ends(rows, pairs)
    settings = _settings(song, end)
    if open_pedal and held:  # a reset would lift what is to stay down
        settings -= {index for index in settings if rows[index].tick > prompt_end and _is_reset(rows[index])}
    selected = notes | pedal | settings
    if not open_pedal:
        for voice in _voices_down(song, pedal):
            last = max(index for index in pedal if rows[index].voice == voice)
            lift = bytes((CONTROL | voice & 0x0F, SUSTAIN, 0))
            releases.append(rows[last]._replace(tick=end, event=lift))
    start = 0 if from_second is None else _bar_line(rows, first, song.clock)
    return MidiSlice(
        events=tuple(rows[index] for index in _chased(rows, selected, start)),
        releases=tuple(releases),
        start=start,
        prompt_end=prompt_end,
        held=held if open_pedal else (),
        drum_notes=int(np.count_nonzero(inside & song.is_drum)),
        endless_notes=int(np.count_nonzero(inside & ~song.has_end & ~song.is_drum)),
    )


def _inside(
    song: Song,
    label: str,
    from_second: float | None,
    seconds: float | None,
    until_second: float | None,
) -> npt.NDArray[np.bool_]:
    """(N,) which notes begin in the passage, drums and those before its first note too.

    Raises:
        UserError: there is none but of drums or without an end.
    """
    played = song.has_end & ~song.is_drum
    if not played.any():
        raise UserError(Fault(label, "must have notes that are not drums", without_notes(song)))
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


def _with_own_ends(rows: list[MidiEvent], pairs: list[tuple[int, int]]) -> tuple[set[int], list[MidiEvent]]:
    """The events that begin and end notes, and ends to be added; none for a note of drums without an end."""
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
    """Whether it resets all controllers, which lifts the pedal."""
    return row.kind == CONTROL and row.event[1] == RESET


def _voices_down(song: Song, selected: Iterable[int]) -> list[int]:
    """The voices whose pedal is down after the selected ones of its moves."""
    found, value = song.pedal_moves
    chosen = np.isin(found, np.array(list(selected), np.int64))
    last = dict(zip(song.stream.voice[found[chosen]].tolist(), value[chosen].tolist(), strict=True))
    return sorted(voice for voice, value in last.items() if value >= DOWN_FROM)


def _select_pedal(song: Song, last: int, open_pedal: bool) -> tuple[set[int], tuple[int, ...]]:
    """The movements of the pedal that are selected, and the voices where it is down at tick `last`."""
    found, values = song.pedal_moves
    tick, voice = song.stream.tick[found], song.stream.voice[found]
    selected = set(found[tick <= last].tolist())
    held = tuple(_voices_down(song, selected))
    waiting = set() if open_pedal else set(held)
    for index, at, of, value in zip(*(each.tolist() for each in (found, tick, voice, values)), strict=True):
        if at > last and of in waiting:
            selected.add(index)
            if value < DOWN_FROM:
                waiting.remove(of)
    return selected, held


def _settings(song: Song, end: int) -> set[int]:
    """What is neither a note nor a pedal that has an effect, up to a tick."""
    stream, kind = song.stream, song.stream.kind
    is_note = (kind == NOTE_ON) | (kind == NOTE_OFF)
    is_pedal = (kind == CONTROL) & (stream.first == SUSTAIN) & ~song.of_drums
    return set(np.flatnonzero(~is_note & ~is_pedal & (stream.tick <= end)).tolist())


def _bar_line(rows: list[MidiEvent], tick: int, clock: TempoMap) -> int:
    """The last bar line at or before a tick, by the time signatures of the file; 4/4 before the first."""
    begin, beats, power = 0, 4, 2
    for row in rows:
        if row.tick <= tick and row.event[:3] == bytes((META, TIME_SIGNATURE, 4)):
            begin, beats, power = row.tick, row.event[3], row.event[4]
    bar = max(1, 4 * clock.resolution * max(1, beats) >> min(power, 16))
    return begin + (tick - begin) // bar * bar


def _chased(rows: list[MidiEvent], selected: set[int], start: int) -> list[int]:
    """What is selected, in the order of time, but of what stands before `start` only the settings that still
    hold there.
    """
    active: dict[object, int] = {}
    for index in sorted(selected):
        row = rows[index]
        if row.tick >= start:
            continue
        if _is_reset(row):  # what it undid is not set, so that it need not be undone
            for number in _UNDONE_BY_RESET:
                active.pop((row.port, CONTROL | row.channel, number), None)
            for kind in (_BEND, _PRESSURE):
                active.pop((row.port, kind | row.channel, 0), None)
        elif (key := _setting_key(row, index)) is not None:
            active[key] = index
    return sorted({index for index in selected if rows[index].tick >= start} | set(active.values()))


def _setting_key(row: MidiEvent, index: int) -> object:
    """What an event sets, so that a later one of the same key replaces it; None for what passes."""
    first, second = row.event[:2]
    if first == META:
        return (META, second) if second in OF_MUSIC else (row.track, second) if second in _OF_TRACK else None
    if row.kind == 0xA0 or (row.kind == CONTROL and second in ALL_OFF):
        return None
    if row.channel < 0 or (row.kind == CONTROL and second in _NUMBERED):
        return index
    return (row.port, first, second if row.kind == CONTROL else 0)
