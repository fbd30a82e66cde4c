#!/usr/bin/env bash
# symusic's synthesizer renders a piece but cannot return the audio.
#
# Version: symusic 0.6.0, with NumPy 2.4.6; the SoundFont is the one in pretty_midi 0.2.11.
# A good guess: `Synthesizer(sf_path=...).render(score)` returns an array of samples, as the example in its README
#     does.
# Behavior: Every call raises TypeError about a C++ Eigen value without a Python type: for scores in ticks, quarters
#     or seconds, in mono or stereo. The binding has no conversion for it, so no argument helps. Scores and their
#     other methods work.
# Output seen: for each of the six calls: TypeError: Unable to convert function return value to a Python type.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check symusic==0.6.0 numpy==2.4.6 pretty_midi==0.2.11 setuptools==80.9.0

cat >render.py <<'PY'
import importlib.util
import pathlib
import sys

import symusic

folder = pathlib.Path(importlib.util.find_spec("pretty_midi").origin).parent
player = symusic.Synthesizer(sf_path=str(next(folder.glob("*.sf2"))), sample_rate=44100)
score = symusic.Score(480)
track = symusic.Track()
track.notes.append(symusic.Note(0, 480, 60, 90))
score.tracks.append(track)
rendered = 0
for unit in ("tick", "quarter", "second"):
    for stereo in (False, True):
        try:
            player.render(score.to(unit), stereo=stereo)
        except TypeError as error:
            print(f"{unit}, stereo {stereo}: {str(error).partition('!')[0]}")
        else:
            rendered += 1
if rendered:
    sys.exit(f"changed: {rendered} of six calls return a sound")
PY
venv/bin/python render.py
