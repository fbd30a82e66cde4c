"""A passage of somebody's MIDI file that is to be continued, and the file with its continuation.

What was played stays as it was written: its tracks, drums, ticks, tempo map, time signatures, texts, programs
and controls, event by event (slice.py says which are kept). The new notes stand in a track and on a channel
of their own, so that neither they nor their pedal can end a note of the prompt, and in ticks that the
prompt's own tempo map turns into their seconds.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coma_gen.core.errors import Fault, UserError
from coma_gen.core.io import sha256_bytes
from coma_gen.midi.drums import RHYTHM_BANKS, rhythm_voices
from coma_gen.midi.io import notes_of, read_bytes, read_song
from coma_gen.midi.notes import Notes
from coma_gen.midi.pedal_events import SUSTAIN
from coma_gen.midi.slice import OF_MUSIC, slice_song
from coma_gen.midi.smf_writer import (
    CONTROL,
    META,
    NOTE_ON,
    PORT,
    PROGRAM,
    TRACK_NAME,
    Event,
    meta_event,
    note_events,
    track_chunk,
)
from coma_gen.midi.song import Song
from coma_gen.midi.tempo_map import TempoMap

COARSEST_TICK = 0.004
"""Seconds: where a tick is longer, a quarter gets a whole number of times as many, so that new notes are
placed within 2 ms."""
MOST_TICKS_A_QUARTER = 0x7FFF
MOST_TRACKS = 0xFFFE
LAST_TICK = 2**28 - 1
"""A delta time of four bytes reaches this far."""
BANK, LEVELS = (0, 32), (7, 10, 11, 91, 93)
"""Controllers that the new notes' channel takes over from a prompt on one channel: bank; volume, pan,
expression, reverb, chorus."""


@dataclass(frozen=True)
class Prompt:
    """What is to be continued.

    Attributes:
        name: how faults call it.
        digest: SHA-256 of the file that it was taken from.
        content: a MIDI file of format 1 with what is kept.
        notes: the notes and the pedal in it, in seconds from its start.
        clock: its tempo map.
        drum_notes: how many notes of drums are in it, which `notes` lack.
        endless_notes: how many others were left out, because they have no end.
        channel: where the new notes will be.
        setup: what is sent on it first, with its tick.
        held: channels whose pedal what follows must lift, with 16 for each port before theirs.
    """

    name: str
    digest: str
    content: bytes
    notes: Notes
    clock: TempoMap
    drum_notes: int
    endless_notes: int
    channel: int
    setup: tuple[Event, ...]
    held: tuple[int, ...]

    def continued(self, new: Notes, *, program: int | None = None) -> bytes:
        """The MIDI file with one more track.

        Args:
            new: at their seconds from the start of `content`. Where the prompt was read with an open pedal,
                its first press may have begun in the prompt, and its release is the prompt's too.
            program: of General MIDI, from 0, that plays the new notes; None for that of the prompt.

        Raises:
            UserError: the prompt's ticks are too short to reach the end of the new notes.
        """
        events = self._track(new, program)
        if self.held:
            prompt_end = self.notes.end_of_onsets
            pressed = len(new.pedal) > 0 and new.pedal[0, 0] <= prompt_end
            lift = int(self.clock.nearest_tick(float(new.pedal[0, 1]) if pressed else prompt_end))
            events += [(lift, event) for voice in self.held for event in _lifting(voice)]
        events.sort(key=lambda event: event[0])
        tracks = int.from_bytes(self.content[10:12], "big") + 1
        return self.content[:10] + tracks.to_bytes(2, "big") + self.content[12:] + self._chunk(events)

    def alone(self, new: Notes, *, program: int | None = None) -> bytes:
        """The new notes as a MIDI file of their own, which begins at the splice, where the prompt's last
        note begins. Its tempi and time signatures are the prompt's.

        Args:
            new: as `continued` takes them.
            program: as `continued` takes it.

        Raises:
            UserError: as `continued`.
        """
        prompt_end = int(self.clock.nearest_tick(self.notes.end_of_onsets))
        rows = read_song(self.content, name=self.name).stream.rows
        of_music = [row for row in rows if row.event[0] == META and row.event[1] in OF_MUSIC]
        before = {row.event[1]: row for row in of_music if row.tick <= prompt_end}
        after = [row for row in of_music if row.tick > prompt_end]
        events = [(max(0, row.tick - prompt_end), row.event) for row in (*before.values(), *after)]
        events += [(max(0, tick - prompt_end), event) for tick, event in self._track(new, program)]
        events.sort(key=lambda event: event[0])
        header = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, self.clock.resolution)
        return header + self._chunk(events)

    def _track(self, new: Notes, program: int | None) -> list[Event]:
        """The track of the new notes."""
        setup = self.setup if program is None else tuple(_on_program(self.setup, program))
        name = (0, meta_event(TRACK_NAME, b"Continuation"))
        return [name, *setup, *note_events(new, self.clock.nearest_tick, channel=self.channel)]

    def _chunk(self, events: list[Event]) -> bytes:
        if events[-1][0] > LAST_TICK:
            rule, remedy = (
                f"must reach its end within {LAST_TICK:,} ticks",
                "save it with fewer a quarter note",
            )
            raise UserError(Fault(self.name, rule, f"{events[-1][0]:,}", remedy))
        return track_chunk(events)


def read_prompt(
    source: Path | bytes,
    *,
    name: str | None = None,
    from_second: float | None = None,
    seconds: float | None = None,
    until_second: float | None = None,
    open_pedal: bool = False,
) -> Prompt:
    """Reads a MIDI file, or a passage of it.

    Args:
        source: a path, or the file's content.
        name: what faults call it; the path by default.
        from_second: it begins with the first note at or after this time of the file; None for the file's
            own beginning.
        seconds: it ends this long after its first note; None for the file's end.
        until_second: it ends before this time of the file; None for the file's end.
        open_pedal: a pedal that is down when the last note begins stays down, for what follows to lift.

    Raises:
        UserError: as `read_notes`; there is no note in the passage.
    """
    label = name or ("prompt" if isinstance(source, bytes) else str(source))
    content = source if isinstance(source, bytes) else read_bytes(source, label)
    song = read_song(content, name=label)
    midi_slice = slice_song(
        song,
        name=label,
        from_second=from_second,
        seconds=seconds,
        until_second=until_second,
        open_pedal=open_pedal,
    )
    factor = _refinement(song.clock, midi_slice.prompt_end)
    tracks: list[list[Event]] = [[] for _ in range(song.stream.tracks)]
    for row in midi_slice.events + midi_slice.releases:
        tracks[row.track].append((max(0, row.tick - midi_slice.start) * factor, row.event))
    for track in tracks:
        track.sort(key=lambda event: event[0])
    written = _file(tracks, song.clock.resolution * factor, label)
    new = read_song(written, name=label)
    channel, setup = _new_channel(new, (midi_slice.prompt_end - midi_slice.start) * factor)
    return Prompt(
        name=label,
        digest=sha256_bytes(content),
        content=written,
        notes=notes_of(new),
        clock=new.clock,
        drum_notes=midi_slice.drum_notes,
        endless_notes=midi_slice.endless_notes,
        channel=channel,
        setup=setup,
        held=midi_slice.held,
    )


def _lifting(voice: int) -> list[bytes]:
    """The pedal of a voice rises, in a track that is on the first port."""
    port, lift = voice // 16, bytes((CONTROL | voice % 16, SUSTAIN, 0))
    return [meta_event(PORT, bytes((port,))), lift, meta_event(PORT, b"\0")] if port else [lift]


def _refinement(clock: TempoMap, prompt_end: int) -> int:
    """How many times as many ticks a quarter gets."""
    wanted = int(np.ceil(clock.tick_seconds(prompt_end) / COARSEST_TICK - 1e-9))
    return max(1, min(wanted, MOST_TICKS_A_QUARTER // clock.resolution))


def _file(tracks: list[list[Event]], resolution: int, label: str) -> bytes:
    """A MIDI file of format 1, with room for one more track; without tracks that have nothing left.

    Raises:
        UserError: there is no room.
    """
    filled = [track for number, track in enumerate(tracks) if number == 0 or track]
    if len(filled) > MOST_TRACKS:
        raise UserError(Fault(label, f"must have at most {MOST_TRACKS:,} tracks", f"{len(filled):,}"))
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(filled), resolution)
    return header + b"".join(track_chunk(track) for track in filled)


def _on_program(setup: Iterable[Event], program: int) -> Iterator[Event]:
    """What is sent on a channel first, with another program, of General MIDI's own bank."""
    for tick, message in setup:
        if message[0] & 0xF0 == PROGRAM:
            yield tick, bytes((message[0], program))
        elif message[1] in BANK:
            yield tick, bytes((*message[:2], 0))
        else:
            yield tick, message


def _new_channel(song: Song, prompt_end: int) -> tuple[int, tuple[Event, ...]]:
    """The channel for what follows (one that the prompt has not used, or not for the longest time) and what
    is sent on it first.

    It sounds as the prompt where that has one program, and is set as loud where that has one channel; else it
    is a piano.

    Args:
        song: the prompt.
        prompt_end: tick at which its last note begins.
    """
    rhythm = rhythm_voices(song.stream)
    rows = [row for row, is_drum in zip(song.stream.rows, song.of_drums.tolist(), strict=True) if not is_drum]
    last_used = {channel: -1 for channel in range(16) if channel not in rhythm} or {0: -1}
    program: dict[int, int] = defaultdict(int)
    control: dict[tuple[int, int], int] = {}
    played: set[tuple[int, int]] = set()
    for row in rows:
        if row.channel in last_used:
            last_used[row.channel] = row.tick
        if row.kind == PROGRAM:
            program[row.channel] = row.event[1]
        elif row.kind == CONTROL:
            control[row.channel, row.event[1]] = row.event[2]
        elif row.kind == NOTE_ON and row.event[2]:
            played.add((row.channel, program[row.channel]))
    channel = min(last_used, key=lambda each: (last_used[each], each))
    sources, programs = {of for of, _ in played}, {used for _, used in played}
    for of in (channel, *sources):  # a bank that no program has taken yet: the one sent here would
        if control.get((of, BANK[0])) in RHYTHM_BANKS:
            control[of, BANK[0]] = 0
    source = min(sources) if len(sources) == 1 else channel
    wanted = BANK + LEVELS if len(sources) == 1 else BANK
    levels = [control.get((source, number)) for number in wanted]
    sent = [
        bytes((CONTROL | channel, number, level))
        for number, level in zip(wanted, levels, strict=True)
        if level is not None
    ]
    banks = sum(message[1] in BANK for message in sent)
    sent.insert(banks, bytes((PROGRAM | channel, min(programs) if len(programs) == 1 else 0)))
    tick = 0 if last_used[channel] < 0 else prompt_end
    return channel, tuple((tick, message) for message in sent)
