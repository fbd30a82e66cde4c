#!/usr/bin/env bash
# DVC parses every dvc.lock and params.yaml in pure Python, although ruamel.yaml has a C parser.
#
# Version: dvc 3.67.1 with ruamel.yaml 0.19.1; then also ruamel.yaml.clib 0.2.15.
# A good guess: `pip install dvc` installs the fast parser that `YAML(typ="safe")` requests, as it did when
#     ruamel.yaml 0.18 depended on it.
# Behavior: 0.19 no longer depends on ruamel.yaml.clib, and `typ="safe"` silently falls back to the pure Python
#     parser. With clib installed explicitly, the same call uses libyaml; parsed documents are equal, and error
#     messages no longer quote the text.
# Output seen: Parser with what dvc installs, CParser with ruamel.yaml.clib, and a lock of 40 stages in 165 and 37
#     ms, equal both times.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dvc==3.67.1 ruamel.yaml==0.19.1 pathspec==0.12.1

cat >parse.py <<'PY'
import json
import sys
import time

import dvc.utils.serialize._yaml as by_dvc

stages = {
    f"stage{number}": {"cmd": f"python {number}.py", "deps": [{"path": f"{number}.txt", "md5": "0" * 32, "size": number}] * 20}
    for number in range(40)
}
text = json.dumps({"schema": "2.0", "stages": stages}, indent=1)
started = time.process_time()
document = by_dvc.parse_yaml(text, "dvc.lock")
seconds = time.process_time() - started
assert document == json.loads(text)
from ruamel.yaml import YAML

name = YAML(typ="safe").Parser.__name__
print(f"{name}, {1000 * seconds:.0f} ms for {len(text):,} characters, the document as it was")
sys.exit(0 if name == sys.argv[1] else f"changed: {name} where {sys.argv[1]} was seen")
PY
echo "installed with dvc:"
venv/bin/python parse.py Parser
venv/bin/pip install --quiet --disable-pip-version-check ruamel.yaml.clib==0.2.15
echo "with ruamel.yaml.clib:"
venv/bin/python parse.py CParser
