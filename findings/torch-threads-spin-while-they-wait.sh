#!/usr/bin/env bash
# A second torch thread uses a whole core even if nothing runs in parallel.
#
# Version: torch 2.13.0 (CPU, its own libgomp), Linux, two or more cores.
# A good guess: Threads that wait for the next parallel operation sleep, so that the cores are free for other
#     programs.
# Behavior: They spin for milliseconds first, which in training (short operations with a little Python between them)
#     is all the time: two threads use two cores although one works. Two such trainings side by side each get far
#     less than half the speed. OMP_WAIT_POLICY=PASSIVE prevents it. The script compares processor time / wall time
#     of the same program under both settings, which does not depend on the speed of the machine.
# Output seen: 1.98 seconds of processor for each of the thread that works as it is, 1.01 with
#     OMP_WAIT_POLICY=PASSIVE.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

cat >busy.py <<'PY'
import os
import time

import torch

torch.set_num_threads(2)
numbers = torch.ones(400_000)


def work(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        numbers.mul_(1.0)  # well below a tenth of a millisecond, by two threads
        pause = time.monotonic() + 0.002
        while time.monotonic() < pause:  # Python alone, by one thread
            pass


work(0.3)
ratios = []
for _ in range(3):
    cpu, wall = time.process_time(), time.thread_time()
    work(1.0)
    ratios.append((time.process_time() - cpu) / (time.thread_time() - wall))
print(sorted(ratios)[1])
PY
if [ "$(nproc)" -lt 2 ]; then
    echo "not applicable on this machine: one core"
    exit 77
fi
unset OMP_WAIT_POLICY GOMP_SPINCOUNT OMP_NUM_THREADS
as_it_is=$(venv/bin/python busy.py)
passive=$(OMP_WAIT_POLICY=PASSIVE venv/bin/python busy.py)
echo "processor time of all threads for each second of the one that works: $as_it_is as it is, $passive with PASSIVE"
venv/bin/python - "$as_it_is" "$passive" <<'PY'
import sys

as_it_is, passive = map(float, sys.argv[1:])
if not as_it_is - passive > 0.4:
    sys.exit("changed: the waiting threads no longer take much more time than with PASSIVE")
PY
