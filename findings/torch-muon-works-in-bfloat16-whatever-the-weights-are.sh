#!/usr/bin/env bash
# torch.optim.Muon computes its updates in bfloat16, even for float32 and float64 weights.
#
# Version: torch 2.13.0 (CPU).
# A good guess: An optimizer computes in the dtype of the weights, as all others in torch.optim do by default, so
#     double precision can be used to check an update.
# Behavior: Each update is orthogonalized in bfloat16. Every value of the update of a float64 weight has 8
#     significant bits, and the update differs by more than 1% from the same five iterations of the published
#     polynomial in double precision. No argument changes that.
# Output seen: values of the step that bfloat16 has: 4096 of 4096; distance from the same iterations in double
#     precision: 1.4% of the step.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6

cat >step.py <<'PY'
import sys

import torch

gradient = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def step(gradient):
    """What Muon adds to a weight of zeros at a rate of 1, without momentum or decay."""
    weight = torch.nn.Parameter(torch.zeros_like(gradient))
    weight.grad = gradient.clone()
    torch.optim.Muon([weight], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0).step()
    return -weight.detach()


taken = step(gradient)
exact = gradient / gradient.norm()
for _ in range(5):
    gram = exact @ exact.T
    exact = 3.4445 * exact + (-4.7750 * gram + 2.0315 * gram @ gram) @ exact

rounded = int((taken == taken.bfloat16().double()).sum())
distance = float((taken - exact).norm() / exact.norm())
print(f"values of the step that bfloat16 has: {rounded} of {taken.numel()}")
print(f"distance from the same iterations in double precision: {distance:.1%} of the step")
if rounded != taken.numel() or distance < 0.003:
    sys.exit("changed: the step is no longer in bfloat16")
PY
venv/bin/python step.py
