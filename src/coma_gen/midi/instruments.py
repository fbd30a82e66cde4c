"""The 128 programs of General MIDI, level 1 (MIDI Manufacturers Association, 1991), by name."""

from __future__ import annotations

import re

from coma_gen.core.errors import Fault, UserError

_NAMES = """
Acoustic Grand Piano, Bright Acoustic Piano, Electric Grand Piano, Honky-tonk Piano
Electric Piano 1, Electric Piano 2, Harpsichord, Clavinet
Celesta, Glockenspiel, Music Box, Vibraphone, Marimba, Xylophone, Tubular Bells, Dulcimer
Drawbar Organ, Percussive Organ, Rock Organ, Church Organ, Reed Organ, Accordion, Harmonica, Tango Accordion
Acoustic Guitar (nylon), Acoustic Guitar (steel), Electric Guitar (jazz), Electric Guitar (clean)
Electric Guitar (muted), Overdriven Guitar, Distortion Guitar, Guitar Harmonics
Acoustic Bass, Electric Bass (finger), Electric Bass (pick), Fretless Bass
Slap Bass 1, Slap Bass 2, Synth Bass 1, Synth Bass 2
Violin, Viola, Cello, Contrabass, Tremolo Strings, Pizzicato Strings, Orchestral Harp, Timpani
String Ensemble 1, String Ensemble 2, Synth Strings 1, Synth Strings 2
Choir Aahs, Voice Oohs, Synth Voice, Orchestra Hit
Trumpet, Trombone, Tuba, Muted Trumpet, French Horn, Brass Section, Synth Brass 1, Synth Brass 2
Soprano Sax, Alto Sax, Tenor Sax, Baritone Sax, Oboe, English Horn, Bassoon, Clarinet
Piccolo, Flute, Recorder, Pan Flute, Blown Bottle, Shakuhachi, Whistle, Ocarina
Lead 1 (square), Lead 2 (sawtooth), Lead 3 (calliope), Lead 4 (chiff)
Lead 5 (charang), Lead 6 (voice), Lead 7 (fifths), Lead 8 (bass + lead)
Pad 1 (new age), Pad 2 (warm), Pad 3 (polysynth), Pad 4 (choir)
Pad 5 (bowed), Pad 6 (metallic), Pad 7 (halo), Pad 8 (sweep)
FX 1 (rain), FX 2 (soundtrack), FX 3 (crystal), FX 4 (atmosphere)
FX 5 (brightness), FX 6 (goblins), FX 7 (echoes), FX 8 (sci-fi)
Sitar, Banjo, Shamisen, Koto, Kalimba, Bagpipe, Fiddle, Shanai
Tinkle Bell, Agogo, Steel Drums, Woodblock, Taiko Drum, Melodic Tom, Synth Drum, Reverse Cymbal
Guitar Fret Noise, Breath Noise, Seashore, Bird Tweet, Telephone Ring, Helicopter, Applause, Gunshot
"""
INSTRUMENTS = tuple(re.split(r"[,\n] ?", _NAMES.strip()))
"""Names by program, from 0."""


def program_of(text: str) -> int:
    """Returns the program of a number (from 0) or a name.

    A name matches exactly, or else the first program whose name contains all of its words: "organ" gives 16.

    Raises:
        UserError: No program matches.
    """
    words = re.findall(r"\w+", text.casefold())
    if text.strip().isdecimal() and int(text) < len(INSTRUMENTS):
        return int(text)
    names = [re.findall(r"\w+", name.casefold()) for name in INSTRUMENTS]
    exact = [program for program, name in enumerate(names) if name == words]
    found = exact or [program for program, name in enumerate(names) if words and set(words) <= set(name)]
    if not found:
        rule = f"must be a General MIDI program: 0 to {len(INSTRUMENTS) - 1}, or a name such as violin"
        raise UserError(Fault("instrument", rule, text or "nothing"))
    return found[0]
