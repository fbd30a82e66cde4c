#!/usr/bin/env bash
# The last bits of some results depend on the number of threads, and not for the same operations in NumPy and torch.
#
# Version: torch 2.13.0 (CPU, MKL), numpy 2.4.6 (OpenBLAS), x86-64, two or more cores.
# A good guess: If any operation changes its summation order with the number of threads, it is a matrix product, and
#     not a row-wise normalization.
# Behavior: NumPy's product of (512 x 300) by (300 x 200) has different bits with two threads than with one; torch's
#     has the same. In torch the gradient of layer_norm's weight changes (for some inputs so does the sum of a
#     million numbers); softmax and the gradient of layer_norm's input do not. A program that pins torch's threads
#     but not OPENBLAS_NUM_THREADS, or the reverse, is not reproducible.
# Output seen: product of NumPy: other bits; product of torch: the same; sum of torch: the same for these numbers;
#     layer_norm weight gradient: other bits; layer_norm input gradient and softmax: the same.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

if [ "$(nproc)" -lt 2 ]; then
    echo "not applicable on this machine: one core"
    exit 77
fi
cat >bits.py <<'PY'
import hashlib
import json
import os
import sys

import numpy as np
import torch

torch.set_num_threads(int(os.environ["OPENBLAS_NUM_THREADS"]))
dice = np.random.default_rng(0)
one, other = (dice.standard_normal(shape).astype(np.float32) for shape in ((512, 300), (300, 200)))
many = torch.from_numpy(dice.standard_normal(1_000_000).astype(np.float32))
rows = torch.from_numpy(dice.standard_normal((4096, 128)).astype(np.float32)).requires_grad_()
scale = torch.ones(128, requires_grad=True)
(torch.nn.functional.layer_norm(rows, (128,), scale) * rows.detach().cos()).sum().backward()
made = {
    "product of NumPy": one @ other,
    "product of torch": (torch.from_numpy(one) @ torch.from_numpy(other)).numpy(),
    "sum of torch": many.sum().numpy(),
    "layer_norm weight gradient of torch": scale.grad.numpy(),
    "layer_norm input gradient of torch": rows.grad.numpy(),
    "softmax of torch": rows.detach().softmax(-1).numpy(),
}
json.dump({name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in made.items()}, sys.stdout)
PY
for threads in 1 2; do
    OPENBLAS_NUM_THREADS=$threads venv/bin/python bits.py >"$threads.json"
done
venv/bin/python - <<'PY'
import json
import sys

one, two = (json.load(open(f"{threads}.json")) for threads in (1, 2))
for name in one:
    print(f"{name}: {'the same' if one[name] == two[name] else 'other bits'}")
depends = {name for name in one if one[name] != two[name]}
if not {"product of NumPy", "layer_norm weight gradient of torch"} <= depends or "product of torch" in depends:
    sys.exit("changed: other operations depend on the number of threads")
PY
