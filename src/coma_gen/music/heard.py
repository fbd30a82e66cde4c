"""What a MIDI file sounds like on one piano: its notes as long as its pedals let them sound.

`read_notes` joins the pedals of all channels, as music for one player has one. To be heard, each channel's
notes are held by its own pedal, so that a pianist's pedal holds no violin, and a prompt's pedal nothing of
its continuation. A pedal on a channel that has no notes holds all.
"""

from __future__ import annotations

import numpy as np

from coma_gen.music.clock import Clock
from coma_gen.music.midi import read_clock, read_notes
from coma_gen.music.notes import Notes, Seconds
from coma_gen.music.pedal import held
from coma_gen.music.stretch import DRUMS, Row, in_time, note_pairs, rows_of
from coma_gen.music.sustain import pedal_intervals


def read_heard(content: bytes, *, name: str) -> Notes:
    """The notes of a file, but for drums, as long as they sound; no pedal is left.

    Raises:
        UserError: as `read_notes`.
    """
    read_notes(content, name=name)  # refuses what cannot be read, before anything here walks through it
    clock = read_clock(content, name=name)
    rows = rows_of(content)
    pairs = [pair for pair in note_pairs(rows) if rows[pair[0]].channel != DRUMS]
    columns = [(rows[on].tick, rows[off].tick, *rows[on].event[1:3], rows[on].channel) for on, off in pairs]
    start, end, pitch, velocity, channel = np.array(columns, np.int64).reshape(-1, 5).T
    onset, duration = clock.seconds(start), clock.span(start, end)
    order = np.lexsort((velocity, duration, pitch, onset))
    notes = Notes(
        onset=onset[order],
        duration=duration[order],
        pitch=pitch[order].astype(np.uint8),
        velocity=velocity[order].astype(np.uint8),
        pedal=np.zeros((0, 2)),
    )
    channels = np.unique(channel).tolist()
    pedals = _pedals(rows, clock, channels, int(end.max(initial=0)))
    return held(notes, pedals, np.searchsorted(channels, channel[order]))


def _pedals(rows: list[Row], clock: Clock, channels: list[int], last: int) -> list[Seconds]:
    """(P, 2) seconds of the pedal that holds each channel's notes."""
    moves: dict[int, list[tuple[int, int]]] = {}
    for index in in_time(rows, (index for index, row in enumerate(rows) if row.is_pedal)):
        moves.setdefault(rows[index].channel, []).append((rows[index].tick, rows[index].event[2]))
    end = max([last, *(tick for own in moves.values() for tick, _ in own)])
    pressed = {
        channel: clock.seconds(pedal_intervals(np.array(own, np.int64), end))
        for channel, own in moves.items()
        if channel != DRUMS
    }
    common = [pedal for channel, pedal in pressed.items() if channel not in channels]
    none = np.zeros((0, 2))
    own = [np.concatenate([pressed.get(channel, none), *common]) for channel in channels]
    return [Notes.of([], [], [], [], pedal).pedal for pedal in own]
