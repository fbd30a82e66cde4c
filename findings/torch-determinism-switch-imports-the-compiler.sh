#!/usr/bin/env bash
# torch.use_deterministic_algorithms imports torch's compiler; an equivalent call does not.
#
# Version: torch 2.13.0, with NumPy 2.4.6.
# A good guess: The call sets a flag, and `set_deterministic_debug_mode("error")`, which sets the same flag, costs
#     the same.
# Behavior: `use_deterministic_algorithms(True)` also sets a flag of the compiler, for which it imports
#     torch._inductor and about eight hundred other modules; a program that never compiles pays for it at every
#     start. After `set_deterministic_debug_mode("error")` the switch reads as on, too, operations without a
#     deterministic implementation raise, and nothing is imported.
# Output seen: use_deterministic_algorithms: 823 modules in 1.0 s, with torch._inductor;
#     set_deterministic_debug_mode: none; both on.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

cat >switch.py <<'PY'
import sys
import time

import torch

before, started = set(sys.modules), time.process_time()
if sys.argv[1] == "use_deterministic_algorithms":
    torch.use_deterministic_algorithms(True)
else:
    torch.set_deterministic_debug_mode("error")
seconds = time.process_time() - started
new = set(sys.modules) - before
compiler = any(name.startswith("torch._inductor") for name in new)
on = torch.are_deterministic_algorithms_enabled()
print(f"{sys.argv[1]}: {len(new)} modules in {seconds:.2f} s, compiler {compiler}, switch {on}")
expected = sys.argv[1] == "use_deterministic_algorithms"
sys.exit(0 if compiler == expected and on and (expected or not new) else "changed")
PY
venv/bin/python switch.py use_deterministic_algorithms
venv/bin/python switch.py set_deterministic_debug_mode
