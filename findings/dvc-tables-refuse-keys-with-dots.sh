#!/usr/bin/env bash
# `dvc metrics show` fails if a metrics file has both a key with a dot and the nested key of the same path.
#
# Version: dvc 3.67.1.
# A good guess: A key "a.b" and a key "b" below "a" are two keys of a JSON file; DVC shows both, or rejects the file
#     when it reads it.
# Behavior: `dvc metrics show --json` prints both. `dvc metrics show` ends with an unexpected error, and shows no
#     other metric of the project either.
# Output seen: --json: both values, exit status 0; the table: "unexpected error - duplicated key 'a.b'", exit status
#     255.
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
