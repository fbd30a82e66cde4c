#!/usr/bin/env bash
# DVC reads a file of metrics with a dot in a key, and cannot show it as a table beside the nested key of that spelling.
#
# Version: dvc 3.67.1.
# A good guess: a key "a.b" and a key "b" below "a" are two keys of a JSON file; both are shown, or the
#     file is refused when it is read.
# Behavior: `dvc metrics show --json` gives both, `dvc metrics show` ends with an unexpected error, for
#     every other metric of the project as well.
# Output seen: --json: both values, exit status 0; the table: "unexpected error - duplicated key 'a.b'",
#     exit status 255.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dvc==3.67.1

export HOME=$place DVC_NO_ANALYTICS=1 PATH=$place/venv/bin:$PATH
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
mkdir work
cd work
git init --quiet
dvc init --quiet

echo '{"a.b": 1, "a": {"b": 2}, "loss": 3}' >metrics.json
echo 'metrics: [metrics.json]' >dvc.yaml
dvc metrics show --json
status=0
dvc metrics show >said 2>&1 || status=$?
cat said
if [ "$status" -eq 0 ] || ! grep -q "duplicated key 'a.b'" said; then
    echo "changed: the table is shown"
    exit 1
fi
