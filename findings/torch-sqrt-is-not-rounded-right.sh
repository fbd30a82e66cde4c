#!/usr/bin/env bash
# torch's square root on a CPU is not correctly rounded as IEEE 754 requires.
#
# Version: torch 2.13.0 (CPU, with MKL), numpy 2.4.6, x86-64.
# A good guess: sqrt is one of the five operations that IEEE 754 requires to be correctly rounded, and processors
#     have an instruction for it, so every library gives the same bits.
# Behavior: A tensor's square root uses MKL's vector library, which is wrong in the last bit for many numbers; so is
#     x ** 0.5. Updates of an optimizer that divides by a root differ from NumPy's. This requires a build with MKL;
#     other processors may use another branch of it.
# Output seen: 198,209 of 1,000,000 float32 numbers and 14,040 in float64 differ by one last bit from NumPy's, on an
#     AMD processor (Zen), whatever ATEN_CPU_CAPABILITY says.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

venv/bin/python - <<'PY'
import sys

import numpy as np
import torch

if not torch.backends.mkl.is_available():
    print("not applicable on this machine: this torch is built without MKL")
    sys.exit(77)
if "GenuineIntel" in open("/proc/cpuinfo").read():
    print("seen on AMD; what an Intel machine does is printed and not judged")
numbers = np.random.default_rng(0).random(1_000_000)
wrong = 0
for kind in (np.float32, np.float64):
    given = numbers.astype(kind)
    ours, right = torch.from_numpy(given).sqrt().numpy(), np.sqrt(given)
    wrong += (ours != right).sum()
    print(f"{kind.__name__}: {(ours != right).sum():,} of {len(given):,} differ, by {np.abs((ours - right) / np.spacing(right)).max():g} last bits at most")
if not wrong:
    if "GenuineIntel" in open("/proc/cpuinfo").read():
        print("not applicable on this machine: all are rounded right on this processor")
        sys.exit(77)
    sys.exit("changed: all are rounded right")
PY
