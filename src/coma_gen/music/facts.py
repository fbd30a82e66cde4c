"""What a MIDI file says of itself: tracks, tempi, time signatures, as plain data."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from coma_gen.music.midi import read_clock
from coma_gen.music.stretch import DRUMS, in_time, rows_of
from coma_gen.music.track import META, PROGRAM, TIME_SIGNATURE, TRACK_NAME

FAMILIES = (
    "piano",
    "chromatic percussion",
    "organ",
    "guitar",
    "bass",
    "strings",
    "ensemble",
    "brass",
    "reed",
    "pipe",
    "synth lead",
    "synth pad",
    "synth effects",
    "ethnic",
    "percussive",
    "sound effects",
)
"""The families of General MIDI, eight programs each."""


def file_facts(content: bytes, *, name: str) -> dict[str, Any]:
    """Facts of a file that `read_notes` reads.

    Returns:
        format, ticks_per_quarter, tracks (each with name, channel from 1, program from 0, instrument and
        notes: one for each track, channel and program that plays), tempo_bpm (first, lowest, highest,
        changes) and time_signatures in their order.

    Raises:
        UserError: as `read_notes`.
    """
    clock = read_clock(content, name=name)
    rows = rows_of(content)
    names: dict[int, str] = {}
    program: dict[int, int] = defaultdict(int)
    notes: dict[tuple[int, int, int], int] = defaultdict(int)
    signatures: list[str] = []
    for index in in_time(rows, range(len(rows))):
        row = rows[index]
        if row.event[0] == META and row.event[1] == TRACK_NAME:
            names[row.track] = row.event[3:].decode("latin-1").strip("\0 ")
        elif row.event[:3] == bytes((META, TIME_SIGNATURE, 4)):
            signature = f"{row.event[3]}/{2 ** min(row.event[4], 16)}"
            signatures += [signature] if signatures[-1:] != [signature] else []
        elif row.kind == PROGRAM:
            program[row.channel] = row.event[1]
        elif row.is_onset:
            notes[row.track, row.channel, program[row.channel]] += 1
    tempi = [60e6 / int(tempo) for tempo in clock.tempo[1:]] or [60e6 / int(clock.tempo[0])]
    return {
        "format": int.from_bytes(content[8:10], "big"),
        "ticks_per_quarter": clock.resolution,
        "tracks": [
            {
                "name": names.get(track, ""),
                "channel": channel + 1,
                "program": used,
                "instrument": "drums" if channel == DRUMS else FAMILIES[used // 8],
                "notes": count,
            }
            for (track, channel, used), count in sorted(notes.items())
        ],
        "tempo_bpm": {
            "first": tempi[0],
            "lowest": min(tempi),
            "highest": max(tempi),
            "changes": len(tempi) - 1,
        },
        "time_signatures": signatures,
    }
