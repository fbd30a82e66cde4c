#!/usr/bin/env bash
# MKL_CBWR=AVX2, the setting for equal bits across processors, silently does nothing on AMD.
#
# Version: torch 2.13.0 with oneMKL 2024; matters on x86-64 processors other than Intel's.
# A good guess: A processor with AVX2 takes the requested branch, so that its products equal those of an Intel
#     machine; or there is a warning.
# Behavior: MKL reports the branch AUTO, and matrix products have the same bits as without the setting. COMPATIBLE
#     is accepted and gives other bits.
# Output seen: with AVX2 MKL_VERBOSE says CNR:AUTO, unset it says CNR:OFF, with COMPATIBLE it says CNR:COMPATIBLE;
#     the product's digest is the same for the first two only. No line of warning.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

if grep -q GenuineIntel /proc/cpuinfo 2>/dev/null || ! grep -qw avx2 /proc/cpuinfo 2>/dev/null; then
    echo "not applicable on this machine: it needs a processor with AVX2 that is not Intel's"
    exit 77
fi
cat >product.py <<'PY'
import hashlib

import torch

torch.set_num_threads(1)
torch.manual_seed(0)
product = torch.randn(512, 300) @ torch.randn(300, 200)
print("digest", hashlib.sha256(product.numpy().tobytes()).hexdigest()[:16])
PY
told() { # the branch by MKL's own words and the digest of the product
    MKL_VERBOSE=1 venv/bin/python product.py 2>&1 | tee said | sed -n 's/.*\(CNR:[A-Z0-9_,]*\).*/\1/p' | sort -u | tr '\n' ' '
    grep digest said
}
unset MKL_CBWR
unset_=$(told)
avx2=$(MKL_CBWR=AVX2 told)
compatible=$(MKL_CBWR=COMPATIBLE told)
echo "unset: $unset_"
echo "AVX2: $avx2"
echo "COMPATIBLE: $compatible"
if [[ $avx2 != *CNR:AUTO* || ${avx2##* } != "${unset_##* }" || ${compatible##* } == "${unset_##* }" ]]; then
    echo "changed: the branch AVX2 is taken, or gives other bits"
    exit 1
fi
