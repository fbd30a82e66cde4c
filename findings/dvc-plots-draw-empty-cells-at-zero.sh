#!/usr/bin/env bash
# DVC plots an empty table cell as 0.
#
# Version: dvc 3.67.1, drawn by the Vega-Lite 5.20 of vl-convert-python 1.9.0.post1.
# A good guess: An empty cell (such as a validation loss that is measured every tenth step) is no point; the line
#     skips it.
# Behavior: The template receives the cell as the text "", so the line drops to 0 and the axis extends to 0,
#     although the template requests a scale without zero.
# Output seen: the line of `val` has four points, of which the two at empty cells are at the bottom of the picture,
#     at y = 300 of 300.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dvc==3.67.1 vl-convert-python==1.9.0.post1

export HOME=$place DVC_NO_ANALYTICS=1 PATH=$place/venv/bin:$PATH
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
mkdir work
cd work
git init --quiet
dvc init --quiet

printf 'step,loss,val\n1,4.0,\n2,3.5,3.9\n3,3.0,\n4,2.9,3.1\n' >curve.csv
printf 'plots:\n  - curve.csv: {x: step, y: [loss, val]}\n' >dvc.yaml
dvc plots show --json >../plots.json
cd ..
venv/bin/python - <<'PY'
import json
import re
import sys

import vl_convert

spec = json.load(open("plots.json"))["data"]["curve.csv"][0]["content"]
svg = vl_convert.vegalite_to_svg(spec, vl_version="5.20")
lines = re.findall(r'<path[^>]*aria-label="[^"]*field: val"[^>]* d="(M[^"]*)"', svg)
line = next(each for each in lines if "L" in each)
points = [tuple(map(float, pair.split(","))) for pair in re.split("[ML]", line)[1:]]
print("the line of val goes through", points, "of 300 x 300, y from above")
if [y for _, y in points][::2] != [300, 300]:
    sys.exit("changed: an empty cell is not drawn at 0")
PY
