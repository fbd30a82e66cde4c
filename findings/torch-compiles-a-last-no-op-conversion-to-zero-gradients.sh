#!/usr/bin/env bash
# torch.compile turns the gradients of a custom autograd function into zeros if its forward ends with a conversion that
# has nothing to convert.
#
# Version: torch 2.11.0. Version 2.13.0 computes the right gradients.
# A good guess: `.to(x.dtype)` and `.contiguous()` return the tensor itself if it has that dtype or layout already, so
#     they change neither values nor gradients, compiled or not.
# Behavior: If the last operation of `forward` is such a conversion of a result in the right dtype, the compiled
#     function returns the right values, and backward gives zeros for its inputs. There is no warning, and it happens
#     before any code generation: backend="eager" is enough. If the same conversion does change the dtype, or is applied
#     to an input, the gradients are right.
# Output seen: without a conversion: eager 2.0, compiled 2.0; to the same dtype: eager 2.0, compiled 0.0; contiguous:
#     eager 2.0, compiled 0.0; to another dtype: eager 2.0, compiled 2.0.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.11.0 numpy==2.4.6

cat >gradients.py <<'PY'
import sys
from collections.abc import Callable

import torch

ENDINGS: dict[str, Callable] = {
    "without a conversion": lambda doubled, x: doubled,
    "to the same dtype": lambda doubled, x: doubled.to(x.dtype),
    "contiguous": lambda doubled, x: doubled.contiguous(),
    "to another dtype": lambda doubled, x: doubled.to(torch.float64),
}


def doubling(ending):
    """A function with the derivative 2."""

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return ending(2 * x, x)

        @staticmethod
        def backward(ctx, gradient):
            return (2 * gradient).to(torch.float32)

    return lambda x: Double.apply(x)


def derivative(function):
    x = torch.ones(1, requires_grad=True)
    function(x).sum().backward()
    return float(x.grad)


found = {}
for name, ending in ENDINGS.items():
    torch._dynamo.reset()
    function = doubling(ending)
    found[name] = derivative(function), derivative(torch.compile(function, backend="eager", fullgraph=True))
    print(f"{name}: eager {found[name][0]}, compiled {found[name][1]}")
expected = {name: (2.0, 0.0 if name in ("to the same dtype", "contiguous") else 2.0) for name in ENDINGS}
if found != expected:
    sys.exit("changed: the gradients are other ones")
PY
venv/bin/python gradients.py
