"""Describes a MIDI file as plain data: tracks, tempi, time signatures, and what is not read."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from coma_gen.midi.smf_writer import META, NOTE_ON, PROGRAM, TIME_SIGNATURE, TRACK_NAME
from coma_gen.midi.song import OTHER_PEDALS, Song

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
"""The instrument families of General MIDI, eight programs each."""


def file_facts(song: Song) -> dict[str, Any]:
    """Collects the facts of a file.

    Returns:
        format, ticks_per_quarter, tracks (one for each track, channel and program with notes: name, port from
        0, channel from 1, program from 0, instrument, notes), tempo_bpm (first, lowest, highest, changes) and
        time_signatures in order.
    """
    names: dict[int, str] = {}
    program: dict[int, int] = defaultdict(int)
    notes: dict[tuple[int, int, int, bool], int] = defaultdict(int)
    signatures: list[str] = []
    for row, is_drum in zip(song.stream.rows, song.is_drum_event.tolist(), strict=True):
        if row.event[0] == META and row.event[1] == TRACK_NAME:
            names[row.track] = row.event[3:].decode("latin-1").strip("\0 ")
        elif row.event[:3] == bytes((META, TIME_SIGNATURE, 4)):
            signature = f"{row.event[3]}/{2 ** min(row.event[4], 16)}"
            signatures += [signature] if signatures[-1:] != [signature] else []
        elif row.kind == PROGRAM:
            program[row.voice] = row.event[1]
        elif row.kind == NOTE_ON and row.event[2]:
            notes[row.track, row.voice, program[row.voice], is_drum] += 1
    tempi = [60e6 / int(tempo) for tempo in song.clock.tempo[1:]] or [60e6 / int(song.clock.tempo[0])]
    return {
        "format": song.stream.form,
        "ticks_per_quarter": song.clock.resolution,
        "tracks": [
            {
                "name": names.get(track, ""),
                "port": voice // 16,
                "channel": voice % 16 + 1,
                "program": used,
                "instrument": "drums" if is_drum else FAMILIES[used // 8],
                "notes": count,
            }
            for (track, voice, used, is_drum), count in sorted(notes.items())
        ],
        "tempo_bpm": {
            "first": tempi[0],
            "lowest": min(tempi),
            "highest": max(tempi),
            "changes": len(tempi) - 1,
        },
        "time_signatures": signatures,
    }


def file_losses(song: Song) -> dict[str, Any]:
    """Counts what of a file is not represented by its notes and sustain pedal.

    Returns:
        drum_notes; notes_without_an_end; notes_that_end_with_another (notes without a release of their own,
        which end with another note of their key and are retained); pedals_of_other_kinds, the number of
        presses of each; ports_read_as_one, the number of ports that the notes come from.
    """
    return {
        "drum_notes": song.drum_notes,
        "notes_without_an_end": song.endless_notes,
        "notes_that_end_with_another": song.borrowed_ends,
        "pedals_of_other_kinds": {name: song.count_presses(number) for name, number in OTHER_PEDALS.items()},
        "ports_read_as_one": len(song.ports),
    }
