"""A passage of a MIDI file as a prompt, and the file with its continuation.

The original music is preserved event by event: tracks, drums, ticks, tempo map, time signatures, texts,
programs and controls (slice.py selects the events of the passage). The new notes have their own track and
channel, so that neither they nor their pedal can end a note of the prompt, and their ticks follow the
prompt's tempo map.
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

MAX_TICK_SECONDS = 0.004
"""Where a tick lasts longer, the resolution is multiplied, so that new notes are placed within 2 ms."""
MAX_RESOLUTION = 0x7FFF
MAX_TRACKS = 0xFFFE
LAST_TICK = 2**28 - 1
"""The largest delta time of four bytes."""
BANK, LEVELS = (0, 32), (7, 10, 11, 91, 93)
"""Controllers that the new channel copies from a prompt on one channel: bank; volume, pan, expression,
reverb, chorus."""


@dataclass(frozen=True)
class Prompt:
    """A passage of a MIDI file that can be continued.

    Attributes:
        name: Name of the prompt in errors.
        digest: SHA-256 of the original file.
        content: The passage as a MIDI file of format 1.
        notes: Its notes and pedal, in seconds from its start.
        clock: Its tempo map.
        drum_notes: Number of its drum notes, which are not in `notes`.
        endless_notes: Number of other notes dropped because they have no end.
        channel: Channel of the new notes.
        setup: Events that set up that channel.
        held: Voices (16 * port + channel) whose pedal is down at the end and must be released.
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

    def append_track(self, new: Notes, *, program: int | None = None) -> bytes:
        """Encodes the prompt and its continuation as a MIDI file with one more track.

        Args:
            new: New notes, in seconds from the start of `content`. Where the prompt was read with an open
                pedal, the first press may begin in the prompt; its release then releases the prompt's pedal
                too.
            program: General MIDI program (from 0) of the new notes; None for that of the prompt.

        Raises:
            UserError: The prompt's ticks are too short to reach the end of the new notes.
        """
        events = self._build_track(new, program)
        if self.held:
            prompt_end = self.notes.end_of_onsets
            pressed = len(new.pedal) > 0 and new.pedal[0, 0] <= prompt_end
            lift = int(self.clock.nearest_tick(float(new.pedal[0, 1]) if pressed else prompt_end))
            events += [(lift, event) for voice in self.held for event in _release_pedal(voice)]
        events.sort(key=lambda event: event[0])
        tracks = int.from_bytes(self.content[10:12], "big") + 1
        return self.content[:10] + tracks.to_bytes(2, "big") + self.content[12:] + self._encode_track(events)

    def encode_alone(self, new: Notes, *, program: int | None = None) -> bytes:
        """Encodes the new notes alone as a MIDI file that begins at the splice.

        It has the tempi and time signatures of the prompt.

        Args:
            new: See `append_track`.
            program: See `append_track`.

        Raises:
            UserError: See `append_track`.
        """
        prompt_end = int(self.clock.nearest_tick(self.notes.end_of_onsets))
        rows = read_song(self.content, name=self.name).stream.rows
        of_music = [row for row in rows if row.event[0] == META and row.event[1] in OF_MUSIC]
        before = {row.event[1]: row for row in of_music if row.tick <= prompt_end}
        after = [row for row in of_music if row.tick > prompt_end]
        events = [(max(0, row.tick - prompt_end), row.event) for row in (*before.values(), *after)]
        events += [(max(0, tick - prompt_end), event) for tick, event in self._build_track(new, program)]
        events.sort(key=lambda event: event[0])
        header = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, self.clock.resolution)
        return header + self._encode_track(events)

    def _build_track(self, new: Notes, program: int | None) -> list[Event]:
        """Returns the events of the new track."""
        setup = self.setup if program is None else tuple(_replace_program(self.setup, program))
        name = (0, meta_event(TRACK_NAME, b"Continuation"))
        return [name, *setup, *note_events(new, self.clock.nearest_tick, channel=self.channel)]

    def _encode_track(self, events: list[Event]) -> bytes:
        if events[-1][0] > LAST_TICK:
            rule, remedy = (
                f"must reach its end within {LAST_TICK:,} ticks",
                "save it with fewer ticks per quarter note",
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
    """Reads a MIDI file, or a passage of it, as a prompt.

    Args:
        source: Path, or content of the file.
        name: Name of the prompt in errors; the path by default.
        from_second: The passage begins with the first note at or after this time; None for the beginning of
            the file.
        seconds: Length of the passage from its first note; None for the end of the file.
        until_second: The passage ends before this time of the file; None for the end of the file.
        open_pedal: Leave a pedal that is down at the last onset down, for the continuation to release.

    Raises:
        UserError: See `read_notes`; also if the passage has no notes.
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
    factor = _compute_refinement(song.clock, midi_slice.prompt_end)
    tracks: list[list[Event]] = [[] for _ in range(song.stream.tracks)]
    for row in midi_slice.events + midi_slice.releases:
        tracks[row.track].append((max(0, row.tick - midi_slice.start) * factor, row.event))
    for track in tracks:
        track.sort(key=lambda event: event[0])
    written = _encode_file(tracks, song.clock.resolution * factor, label)
    new = read_song(written, name=label)
    channel, setup = _choose_channel(new, (midi_slice.prompt_end - midi_slice.start) * factor)
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


def _release_pedal(voice: int) -> list[bytes]:
    """Returns the events that release the pedal of a voice, in a track on the first port."""
    port, lift = voice // 16, bytes((CONTROL | voice % 16, SUSTAIN, 0))
    return [meta_event(PORT, bytes((port,))), lift, meta_event(PORT, b"\0")] if port else [lift]


def _compute_refinement(clock: TempoMap, prompt_end: int) -> int:
    """Returns the whole number by which the resolution is multiplied."""
    factor = int(np.ceil(clock.tick_seconds(prompt_end) / MAX_TICK_SECONDS - 1e-9))
    return max(1, min(factor, MAX_RESOLUTION // clock.resolution))


def _encode_file(tracks: list[list[Event]], resolution: int, label: str) -> bytes:
    """Encodes a MIDI file of format 1 without empty tracks.

    Raises:
        UserError: The file would have no room for one more track.
    """
    filled = [track for number, track in enumerate(tracks) if number == 0 or track]
    if len(filled) > MAX_TRACKS:
        raise UserError(Fault(label, f"must have at most {MAX_TRACKS:,} tracks", f"{len(filled):,}"))
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(filled), resolution)
    return header + b"".join(track_chunk(track) for track in filled)


def _replace_program(setup: Iterable[Event], program: int) -> Iterator[Event]:
    """Yields the setup events with another program, of the default bank."""
    for tick, message in setup:
        if message[0] & 0xF0 == PROGRAM:
            yield tick, bytes((message[0], program))
        elif message[1] in BANK:
            yield tick, bytes((*message[:2], 0))
        else:
            yield tick, message


def _choose_channel(song: Song, prompt_end: int) -> tuple[int, tuple[Event, ...]]:
    """Chooses the channel of the continuation (unused by the prompt, or least recently used) and its setup.

    It has the prompt's program if the prompt has only one (otherwise it is a piano), and the prompt's levels
    if the prompt has only one channel.

    Args:
        song: The prompt.
        prompt_end: Tick of its last onset.
    """
    rhythm = rhythm_voices(song.stream)
    rows = [
        row for row, is_drum in zip(song.stream.rows, song.is_drum_event.tolist(), strict=True) if not is_drum
    ]
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
    for of in (channel, *sources):  # a pending rhythm bank would take effect with the program sent here
        if control.get((of, BANK[0])) in RHYTHM_BANKS:
            control[of, BANK[0]] = 0
    source = min(sources) if len(sources) == 1 else channel
    numbers = BANK + LEVELS if len(sources) == 1 else BANK
    levels = [control.get((source, number)) for number in numbers]
    setup = [
        bytes((CONTROL | channel, number, level))
        for number, level in zip(numbers, levels, strict=True)
        if level is not None
    ]
    banks = sum(message[1] in BANK for message in setup)
    setup.insert(banks, bytes((PROGRAM | channel, min(programs) if len(programs) == 1 else 0)))
    tick = 0 if last_used[channel] < 0 else prompt_end
    return channel, tuple((tick, message) for message in setup)
