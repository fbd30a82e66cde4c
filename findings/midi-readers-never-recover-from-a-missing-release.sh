#!/usr/bin/env bash
# After one note without a note-off, three MIDI readers lengthen every later note of that key and lose the last.
#
# Version: symusic 0.6.0, miditoolkit 1.0.1, muspy 0.5.0, pretty_midi 0.2.11.post0.
# A good guess: With two note-ons and one note-off of a key, one note is cut or lost; later notes of the key, each
#     with its own note-on and note-off, are read correctly.
# Behavior: symusic and miditoolkit pair events first in, first out and never drop the open note: each later note
#     starts where the previous one should, and the last is lost. muspy does the same and then adds the last.
#     pretty_midi ends every open note of a key at its note-off, and is correct from then on.
# Output seen: of notes at 1440 and 2400 of 480 ticks each, after a doubled note-on: symusic and miditoolkit (0,
#     960) (480, 1440) (1440, 1440); muspy the same and (2400, 480); pretty_midi (0, 960) (480, 480) (1440, 480)
#     (2400, 480). Start and length in ticks.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check symusic==0.6.0 miditoolkit==1.0.1 muspy==0.5.0 pretty_midi==0.2.11.post0 mido==1.3.3 numpy==2.4.6 setuptools==84.2.1

venv/bin/python -W ignore - <<'PY'
import sys

import struct


def midi(*events):
    """A file of one track; events are a tick below 2^14 and bytes."""
    body, last = b"", 0
    for tick, content in (*events, (events[-1][0], b"\xff\x2f\x00")):
        delta, last = tick - last, tick
        body += bytes([delta >> 7 | 128, delta & 127]) + content
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", len(body)) + body


ON, OFF = b"\x90\x3c\x40", b"\x80\x3c\x00"
content = midi((0, ON), (480, ON), (960, OFF), (1440, ON), (1920, OFF), (2400, ON), (2880, OFF))
open("a.mid", "wb").write(content)

import miditoolkit
import muspy
import pretty_midi
import symusic

ticks = 2 * 480  # a second, at 120 beats a minute
read = {
    "symusic": [(n.time, n.duration) for n in symusic.Score.from_midi(content).tracks[0].notes],
    "miditoolkit": [(n.start, n.end - n.start) for n in miditoolkit.MidiFile("a.mid").instruments[0].notes],
    "muspy": [(n.time, n.duration) for n in muspy.read_midi("a.mid").tracks[0].notes],
    "pretty_midi": [
        (round(n.start * ticks), round((n.end - n.start) * ticks))
        for n in pretty_midi.PrettyMIDI("a.mid").instruments[0].notes
    ],
}
for name, notes in read.items():
    print(name, sorted(notes))
stretched = [(0, 960), (480, 1440), (1440, 1440)]
expected = {
    "symusic": stretched,
    "miditoolkit": stretched,
    "muspy": [*stretched, (2400, 480)],
    "pretty_midi": [(0, 960), (480, 480), (1440, 480), (2400, 480)],
}
if {name: sorted(notes) for name, notes in read.items()} != expected:
    sys.exit("changed: they read it in another way")
PY
