#!/usr/bin/env bash
# pretty_midi loses a note shorter than a tick that it wrote itself, and doubles the next note of the key.
#
# Version: pretty_midi 0.2.11.post0, mido 1.3.3.
# A good guess: The library reads what it writes; a note that rounds to zero length becomes one tick long, or is
#     dropped.
# Behavior: Its note-on and note-off fall on the same tick and are sorted with the note-off (a note-on of velocity
#     0) first. The reader then has a note-on that stays open until the next note-off of the key, however late that
#     is. If it is the only note on its key, it is lost.
# Output seen: of notes at 1 s (0.2 ms long) and 2 s (0.5 s long) of one key, read back: 1 to 2.5 s and 2 to 2.5 s.
#     Of the first alone: nothing.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pretty_midi==0.2.11.post0 mido==1.3.3 numpy==2.4.6 setuptools==84.2.1

venv/bin/python -W ignore - <<'PY'
import sys

import pretty_midi


def back(*times):
    made = pretty_midi.PrettyMIDI(resolution=480)
    piano = pretty_midi.Instrument(0)
    piano.notes = [pretty_midi.Note(64, 60, start, end) for start, end in times]
    piano.notes.append(pretty_midi.Note(64, 72, 0.0, 0.5))  # another key, so that there is always one
    made.instruments.append(piano)
    made.write("a.mid")
    notes = pretty_midi.PrettyMIDI("a.mid").instruments[0].notes
    return sorted((round(float(n.start), 3), round(float(n.end), 3)) for n in notes if n.pitch == 60)


both, alone = back((1.0, 1.0002), (2.0, 2.5)), back((1.0, 1.0002))
print("both:", both)
print("the short one alone:", alone)
if (both, alone) != ([(1.0, 2.5), (2.0, 2.5)], []):
    sys.exit("changed: a short note comes back")
PY
