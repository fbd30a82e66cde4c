#!/usr/bin/env bash
# DVC does not restore earlier runs of a stage with an uncached output, unless that output is a metric or a plot.
#
# Version: dvc 3.67.1.
# A good guess: DVC's run cache restores the outputs of a run with known code, params and inputs. An output with
#     `cache: false`, such as a small JSON file tracked by git, makes no difference, as it makes none below
#     `metrics:`.
# Behavior: Such a stage is never written to the run cache. Two experiments that alternate rerun it each time.
# Output seen: of two stages with the same command, `measured` (the file below `metrics:`) ran twice for the params
#     1, 2, 1, and `plain` (the file below `outs:`) three times.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dvc==3.67.1

export HOME=$place DVC_NO_ANALYTICS=1 PATH=$place/venv/bin:$PATH
mkdir work
cd work
git init --quiet
dvc init --quiet

cat >dvc.yaml <<'YAML'
stages:
  measured:
    cmd: echo ran >>../measured.log; echo '{"n":1}' >measured.json; cp params.yaml measured.out
    params: [n]
    outs: [measured.out]
    metrics: [{measured.json: {cache: false}}]
  plain:
    cmd: echo ran >>../plain.log; echo '{"n":1}' >plain.json; cp params.yaml plain.out
    params: [n]
    outs: [plain.out, {plain.json: {cache: false}}]
YAML
for n in 1 2 1; do
  echo "n: $n" >params.yaml
  dvc repro --quiet
done
measured=$(wc -l <../measured.log) plain=$(wc -l <../plain.log)
echo "for the params 1, 2, 1: measured ran $measured times, plain ran $plain times"
[ "$measured" -eq 2 ] && [ "$plain" -eq 3 ] || { echo "changed: the run cache treats them alike"; exit 1; }
