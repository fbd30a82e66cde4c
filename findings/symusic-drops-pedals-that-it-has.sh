#!/usr/bin/env bash
# symusic writes a score with pedals to a MIDI file without them.
#
# Version: symusic 0.6.0.
# A good guess: A track has notes, controls, pitch bends and pedals (a class of their own, which miditok reads and
#     fills), and all of them are written to MIDI.
# Behavior: track.pedals is silently omitted; only track.controls is written. A file that is read and written again
#     keeps its pedal, because reading fills controls too; a pedal that a program created is lost.
# Output seen: one pedal before; after dumps_midi and from_midi 0 pedals and 0 controls. The same pedal as two
#     control changes comes back as 2 controls.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check symusic==0.6.0 numpy==2.4.6

venv/bin/python - <<'PY'
import sys

from symusic import ControlChange, Note, Pedal, Score, Track


def back(track):
    score = Score(480)
    track.notes.append(Note(0, 960, 60, 64))
    score.tracks.append(track)
    return Score.from_midi(score.dumps_midi()).tracks[0]


pedals, controls = Track("piano", 0, False), Track("piano", 0, False)
pedals.pedals.append(Pedal(0, 480))
for tick, value in ((0, 127), (480, 0)):
    controls.controls.append(ControlChange(tick, 64, value))
lost, kept = back(pedals), back(controls)
print(f"from a pedal: {len(lost.pedals)} pedals, {len(lost.controls)} controls")
print(f"from two controls: {len(kept.pedals)} pedals, {len(kept.controls)} controls")
if len(lost.pedals) or len(lost.controls) or len(kept.controls) != 2:
    sys.exit("changed: a pedal is written")
PY
