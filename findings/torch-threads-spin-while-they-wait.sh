#!/usr/bin/env bash
# A second thread of torch burns a whole core while the program does nothing in parallel.
#
# Version: torch 2.13.0 (CPU, its own libgomp), Linux, two or more cores.
# A good guess: threads that wait for the next parallel operation sleep, so that the cores are free for
#     another program.
# Behavior: they spin for milliseconds first, which in a training (short operations, a little Python
#     between them) is all the time: two threads take two cores' worth of time though one works. Side by
#     side, two such trainings get far less than half each. OMP_WAIT_POLICY=PASSIVE ends it. What is
#     compared is processor time by the wall's, of the same program under both settings; it does not
#     depend on how fast the machine is.
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
