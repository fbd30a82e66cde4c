#!/usr/bin/env bash
# `dvc exp run -S lr=1e-5` writes a params.yaml whose learning rate PyYAML reads as a string.
#
# Version: dvc 3.67.1 (ruamel.yaml, YAML 1.2) and PyYAML 6.0.3 (YAML 1.1).
# A good guess: A training script reads as a number what DVC writes to params.yaml as a number.
# Behavior: DVC writes 1e-05, which is a number in YAML 1.2 but, without a dot, a string in YAML 1.1. DVC's own
#     tables show a number; the script's yaml.safe_load returns a str. Likewise `-S name=no` becomes False, and `-S
#     start=1:30` becomes 90.
# Output seen: params.yaml holds lr: 1e-05, name: no, start: 1:30; PyYAML reads '1e-05', False and 90.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dvc==3.67.1 PyYAML==6.0.3

export HOME=$place DVC_NO_ANALYTICS=1 PATH=$place/venv/bin:$PATH
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
mkdir work
cd work
git init --quiet
dvc init --quiet

printf 'lr: 0.1\nname: a\nstart: 0\n' >params.yaml
cat >dvc.yaml <<'YAML'
stages:
  train:
    cmd: cp params.yaml seen.yaml
    params: [lr, name, start]
    outs: [seen.yaml]
YAML
git add --all
git commit --quiet --message start
dvc exp run --quiet -S lr=1e-5 -S name=no -S start=1:30 >said 2>&1 || { cat said; exit 1; }
cat seen.yaml
dvc params diff --json
echo
../venv/bin/python - <<'PY'
import sys

import yaml

read = yaml.safe_load(open("seen.yaml"))
print("PyYAML:", read)
if read != {"lr": "1e-05", "name": False, "start": 90}:
    sys.exit("changed: PyYAML reads what DVC means")
PY
