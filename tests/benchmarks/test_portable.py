"""Products through OpenBLAS: the same numbers as torch's own, and the weights that the page tells."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import portable
from coma_gen.workspace.verify import read_vendor

AGREES = """
import torch
from benchmarks.portable import replace_kernels

def results():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
    a, b, c, v = draw(5, 7), draw(7, 3), draw(5, 3), draw(7)
    many, other, sums = draw(2, 5, 7), draw(2, 7, 3), draw(2, 5, 3)
    yield from (a @ b, a @ v, v @ v, many @ other, a.exp(), a.abs().log())
    yield from (torch.addmm(c, a, b, beta=0.5, alpha=2), torch.baddbmm(sums, many, other, beta=0))
    yield from (c.clone().addmm_(a, b), sums.clone().baddbmm_(many, other, alpha=3))
    yield torch.addmv(c[:, 0], a, v)
    yield torch.mm(a, b, out=torch.empty_like(c))
    yield torch.bmm(many, other, out=sums.clone())
    yield torch.baddbmm(sums, many, other, alpha=2, out=sums)
    yield (a.bfloat16() @ b.bfloat16()).double()

before = list(results())
replace_kernels()
after = list(results())
assert len(before) == len(after) == 15
for one, other in zip(before, after, strict=True):
    assert one.shape == other.shape and torch.allclose(one, other, rtol=1e-12, atol=1e-12)
"""


def test_replaced_kernels_give_what_torch_gives() -> None:
    subprocess.run([sys.executable, "-c", AGREES], check=True)


@pytest.mark.slow
@pytest.mark.skipif(
    read_vendor() != "AuthenticAMD",
    reason="measured on AMD and on an emulated Intel processor; `python -m benchmarks.portable` tells it",
)
def test_the_weights_are_those_of_the_page() -> None:
    _, digest = portable.measure("openblas", 0)
    assert digest == portable.WEIGHTS
