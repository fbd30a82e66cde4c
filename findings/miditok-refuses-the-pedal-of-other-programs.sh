#!/usr/bin/env bash
# miditok with pedals on and one track per sequence fails on a pedal of any program but the piano.
#
# Version: miditok 3.1.0, symusic 0.6.0.
# A good guess: Without program tokens a track's program does not matter: a pedal on an organ or an electric piano
#     is the same token.
# Behavior: The pedal token contains the track's program, and without `use_programs` the vocabulary has only that of
#     program 0. Encoding raises KeyError for a file that the same tokenizer accepts without its pedal.
# Output seen: program 0 with a pedal: encoded; program 4 (electric piano) without one: encoded; program 4 with one:
#     KeyError 'Pedal_4'.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check miditok==3.1.0 symusic==0.6.0 numpy==2.4.6

venv/bin/python -W ignore - <<'PY'
import sys

from miditok import REMI, TokenizerConfig
from symusic import ControlChange, Note, Score, Track

tokenizer = REMI(TokenizerConfig(use_sustain_pedals=True))


def encoded(program, pedal):
    score = Score(480)
    track = Track("a", program, False)
    for number in range(4):
        track.notes.append(Note(480 * number, 480, 60 + number, 64))
    if pedal:
        track.controls.extend([ControlChange(0, 64, 127), ControlChange(960, 64, 0)])
    score.tracks.append(track)
    try:
        tokenizer(Score.from_midi(score.dumps_midi()))
    except KeyError as error:
        return f"KeyError {error}"
    return "encoded"


said = [encoded(0, True), encoded(4, False), encoded(4, True)]
print("piano with a pedal, electric piano without, electric piano with:", said)
if said != ["encoded", "encoded", "KeyError 'Pedal_4'"]:
    sys.exit("changed: the pedal is encoded")
PY
