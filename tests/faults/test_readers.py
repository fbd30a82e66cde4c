"""Random valid MIDI files: all readers agree with the intended notes and with an independent reader.

The independent reader is mido: its parser and merged tracks, and a minimal pairing of note-ons and note-offs.
That pairing is wrong where a note-off is missing or precedes its note; such files are compared with their
intended notes only.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Callable

import mido
import numpy as np
import pytest

from coma_gen.config.schema import TokenizerParams
from coma_gen.midi.io import notes_of, read_notes, read_song
from coma_gen.midi.notes import Notes
from coma_gen.midi.playback import read_sounding_notes
from coma_gen.midi.prompt import read_prompt
from coma_gen.tokenizer.inspect import inspect_tokens
from coma_gen.tokenizer.remi import Tokenizer
from faults.budgets import BOTH_FORMS, SHORT, Form
from faults.settings import TOKENIZER
from faults.songs import Meant, Written, written

SILENCING = (120, 123, 124, 125, 126, 127)


def by_mido(content: bytes) -> list[Meant]:
    """The notes of a file, drums too, by mido and first in, first out."""
    file = mido.MidiFile(file=io.BytesIO(content), clip=True)
    by_port: dict[int, list[mido.MidiTrack]] = defaultdict(list)
    for each in file.tracks:
        port = next((message.port for message in each if message.type == "midi_port"), 0)
        by_port[port].append(each)
    found: list[Meant] = []
    for port, tracks in by_port.items():
        tick = 0
        sounding: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for message in mido.merge_tracks(tracks):
            tick += message.time
            if message.type == "note_on" and message.velocity:
                sounding[message.channel, message.note].append((message.velocity, tick))
            elif message.type in ("note_on", "note_off"):
                if waiting := sounding[message.channel, message.note]:
                    found.append(((port, message.channel, message.note), *waiting.pop(0), tick))
            elif message.type == "control_change" and message.control in SILENCING:
                for (channel, key), waiting in sounding.items():
                    if channel == message.channel:
                        found += [((port, channel, key), *each, tick) for each in waiting]
                        waiting.clear()
    return sorted(found)


def seconds_by_mido(content: bytes, ticks: list[int]) -> list[float]:
    """Ticks as seconds by mido's own arithmetic, tempo by tempo."""
    file = mido.MidiFile(file=io.BytesIO(content), clip=True)
    tempi = [(0, 500_000)]
    tick = 0
    for message in mido.merge_tracks(file.tracks):
        tick += message.time
        if message.type == "set_tempo":
            tempi.append((tick, message.tempo))
    return [
        sum(
            mido.tick2second(max(0, min(at, until) - since), file.ticks_per_beat, tempo)
            for (since, tempo), (until, _) in zip(tempi, [*tempi[1:], (2**40, 0)], strict=True)
        )
        for at in ticks
    ]


def by_us(content: bytes) -> list[Meant]:
    """The notes of a file, drums too, by the one walker."""
    song = read_song(content, name="a.mid")
    stream = song.stream
    on, off = song.pairs.on[song.has_end], song.pairs.off[song.has_end]
    columns = (stream.voice[on], stream.first[on], stream.second[on], stream.tick[on], stream.tick[off])
    return sorted(
        ((voice // 16, voice % 16, key), velocity, start, end)
        for voice, key, velocity, start, end in zip(*(each.tolist() for each in columns), strict=True)
    )


def keys_of(notes: Notes) -> list[tuple[float, int, int]]:
    columns = (notes.onset.round(6), notes.pitch, notes.velocity)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def check(song: Written, tokenizer: Tokenizer) -> None:
    """Holds every reading of a file against what it means."""
    assert by_us(song.content) == song.notes
    read = read_song(song.content, name="a.mid")
    played = [each for each in song.notes if each[0][:2] not in song.drums]
    assert (len(read.sounding_notes[0]), read.endless_notes) == (len(played), song.endless)
    pressed = {
        (voice // 16, voice % 16): ticks.tolist() for voice, ticks in read.sustain_intervals(10**6).items()
    }
    assert {voice: [tuple(each) for each in ticks] for voice, ticks in pressed.items() if ticks} == song.pedal
    notes = notes_of(read)
    if song.is_plain:
        assert by_mido(song.content) == song.notes
        ticks = [each[2] for each in played] + [each[3] for each in played]
        times = np.array(seconds_by_mido(song.content, ticks)).reshape(2, -1)
        np.testing.assert_allclose(np.sort(notes.onset), np.sort(times[0]), atol=1e-6)
        np.testing.assert_allclose(np.sort(notes.onset + notes.duration), np.sort(times[1]), atol=1e-6)
    if not played:
        return
    assert keys_of(read_sounding_notes(song.content, name="a.mid")) == keys_of(notes)
    prompt = read_prompt(song.content)
    assert keys_of(prompt.notes) == keys_of(notes) and prompt.endless_notes == song.endless
    np.testing.assert_allclose(np.sort(prompt.notes.duration), np.sort(notes.duration), atol=1e-9)
    _check_a_passage(song.content, notes)
    facts = inspect_tokens(song.content, tokenizer, name="a.mid", shown=0)
    assert (facts["music"]["notes"], facts["lost"]["notes_without_an_end"]) == (len(notes), song.endless)


def _check_a_passage(content: bytes, whole: Notes) -> None:
    """A part that is cut out, continued and read again has its notes and the new one."""
    start = float(whole.onset[len(whole) // 2])
    expected = whole.between(start, start + 1.0)
    for open_pedal in (False, True):
        prompt = read_prompt(content, from_second=start, seconds=1.0, open_pedal=open_pedal)
        moved = expected.onset[0] - prompt.notes.onset[0]
        np.testing.assert_allclose(prompt.notes.onset + moved, expected.onset, atol=1e-6)
        assert prompt.notes.pitch.tolist() == expected.pitch.tolist()
        np.testing.assert_allclose(np.sort(prompt.notes.duration), np.sort(expected.duration), atol=1e-6)
        new = Notes.of([prompt.notes.end + 5.0], [0.5], [72], [64])
        assert len(read_notes(prompt.append_track(new))) == len(expected) + 1


@pytest.mark.parametrize("form", BOTH_FORMS)
def test_random_valid_files_are_read_as_they_are_meant(
    form: Form, tally: Callable[[str, str, int], None]
) -> None:
    tokenizer = Tokenizer.build(TokenizerParams.model_validate(TOKENIZER))
    began, seed, least = time.monotonic(), 0, 300 if form is SHORT else 10_000
    while seed < least or time.monotonic() - began < form.seconds / 10:
        try:
            check(written(seed), tokenizer)
        except Exception as error:
            raise AssertionError(f"the file of seed {seed}") from error
        seed += 1
    tally("any valid file", "read as it is meant and as mido has it, by all that reads", seed)
