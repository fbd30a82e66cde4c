"""Reads a MIDI file for playback on one piano: notes last as long as they sound under the pedals.

`read_notes` merges the pedals of all channels, because music for one player has one pedal. For playback, the
notes of each channel are sustained by its own pedal, so that a pianist's pedal does not sustain a violin, nor
a prompt's pedal the continuation. A pedal on a channel without notes applies to all channels.
"""

from __future__ import annotations

import numpy as np

from coma_gen.midi.io import read_song
from coma_gen.midi.notes import Notes, Seconds
from coma_gen.midi.song import Song
from coma_gen.midi.sustain import apply_sustain_per_voice


def read_sounding_notes(content: bytes, *, name: str) -> Notes:
    """Reads the notes of a file without drums, lengthened by the pedals; the result has no pedal.

    Raises:
        UserError: See `read_notes`.
    """
    song = read_song(content, name=name)
    stream, clock = song.stream, song.clock
    on, off = song.sounding_notes
    start, end = stream.tick[on], stream.tick[off]
    onset, duration = clock.seconds(start), clock.span(start, end)
    pitch, velocity, voice = stream.first[on], stream.second[on], stream.voice[on]
    order = np.lexsort((velocity, duration, pitch, onset))
    notes = Notes(
        onset=onset[order],
        duration=duration[order],
        pitch=pitch[order].astype(np.uint8),
        velocity=velocity[order].astype(np.uint8),
        pedal=np.zeros((0, 2)),
    )
    voices = np.unique(voice).tolist()
    return apply_sustain_per_voice(notes, _get_pedals(song, voices), np.searchsorted(voices, voice[order]))


def _get_pedals(song: Song, voices: list[int]) -> list[Seconds]:
    """Returns the pedal intervals (P, 2), in seconds, that apply to each voice."""
    pressed = {
        voice: song.clock.seconds(ticks) for voice, ticks in song.sustain_intervals(song.last_tick).items()
    }
    common = [pedal for voice, pedal in pressed.items() if voice not in voices]
    none = np.zeros((0, 2))
    own = [np.concatenate([pressed.get(voice, none), *common]) for voice in voices]
    return [Notes.of([], [], [], [], pedal).pedal for pedal in own]
