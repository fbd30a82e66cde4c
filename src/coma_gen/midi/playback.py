"""What a MIDI file sounds like on one piano: its notes as long as its pedals let them sound.

`read_notes` joins the pedals of all channels, as music for one player has one. To be heard, each channel's
notes are held by its own pedal, so that a pianist's pedal holds no violin, and a prompt's pedal nothing of
its continuation. A pedal on a channel that has no notes holds all.
"""

from __future__ import annotations

import numpy as np

from coma_gen.midi.io import read_song
from coma_gen.midi.notes import Notes, Seconds
from coma_gen.midi.song import Song
from coma_gen.midi.sustain import apply_sustain_per_voice


def read_sounding_notes(content: bytes, *, name: str) -> Notes:
    """The notes of a file, but for drums, as long as they sound; no pedal is left.

    Raises:
        UserError: as `read_notes`.
    """
    song = read_song(content, name=name)
    stream, clock = song.stream, song.clock
    on, off = song.played
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
    return apply_sustain_per_voice(notes, _pedals(song, voices), np.searchsorted(voices, voice[order]))


def _pedals(song: Song, voices: list[int]) -> list[Seconds]:
    """(P, 2) seconds of the pedal that holds each voice's notes."""
    pressed = {voice: song.clock.seconds(ticks) for voice, ticks in song.pressed(song.last_tick).items()}
    common = [pedal for voice, pedal in pressed.items() if voice not in voices]
    none = np.zeros((0, 2))
    own = [np.concatenate([pressed.get(voice, none), *common]) for voice in voices]
    return [Notes.of([], [], [], [], pedal).pedal for pedal in own]
