"""Matrix products by numpy equal torch's; decoding token by token equals whole chunks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from coma_gen.model.portable import attend

PINNED = """
from coma_gen.core.seeding import is_pinned, pin_cpu
pin_cpu(pin=True, threads=1)
import numpy as np
import torch
from torch.nn import functional as F
from coma_gen.model.device import deterministic
from coma_gen.model.portable import multiply, products_of, replace_kernels
"""
PRODUCTS = """
def results():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
    a, b, c, v = draw(5, 7), draw(7, 3), draw(5, 3), draw(7)
    many, other, sums = draw(2, 5, 7), draw(2, 7, 3), draw(2, 5, 3)
    gaps, wide = draw(5, 14)[:, ::2], draw(7, 1).expand(7, 3)
    yield from (a @ b, a @ v, v @ v, many @ other, a.exp(), a.abs().log(), torch.zeros(2).log())
    yield from (gaps @ b, a @ wide, b.T @ a.T, a[:, :0] @ b[:0], torch.tensor(2.0).exp())
    yield from (torch.addmm(c, a, b, beta=0.5, alpha=2), torch.baddbmm(sums, many, other, beta=0))
    yield from (torch.addmm(c[0], a, b), torch.addmm(c * float("nan"), a, b, beta=0))
    yield from (c.clone().addmm_(a, b), sums.clone().baddbmm_(many, other, alpha=3))
    yield torch.addmv(c[:, 0], a, v)
    yield torch.mm(a, b, out=torch.empty_like(c))
    yield torch.mm(a, b, out=torch.empty(0, dtype=torch.float64))
    yield torch.mm(a, b, out=torch.empty(3, 5, dtype=torch.float64).T)
    yield torch.bmm(many, other, out=sums.clone())
    yield torch.baddbmm(sums, many, other, alpha=2, out=sums.clone())
    same = sums.clone()
    yield torch.baddbmm(same, many, other, out=same)
    yield (a.bfloat16() @ b.bfloat16()).double()
    weight = a.clone().requires_grad_()
    (weight @ b).exp().sum().backward()
    yield weight.grad

before = list(results())
assert products_of(before[0]).multiply is torch.matmul
replace_kernels()
assert products_of(before[0]).multiply is multiply
after = list(results())
assert len(before) == len(after) == 27, len(before)
for one, other in zip(before, after, strict=True):
    assert one.shape == other.shape and torch.allclose(one, other, rtol=1e-6, atol=1e-12)
"""
ONE_BY_ONE = """
import sys
sys.path.insert(0, "tests/helpers")
from coma_gen.model.conformer import Conformer
from coma_gen.generation.token_decoder import TokenDecoder
from small_models import small_params
for position in ("xpos", "dynamic"):
    params = small_params(attention_position=position).model
    model = Conformer(params=params, vocab_size=30, seed=0).eval()
    ids = torch.randint(0, 30, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = model(ids)
        with deterministic(1):
            assert torch.allclose(model(ids), plain, atol=1e-5)
            state = model.init_cache(2)
            step = TokenDecoder(model)
            stepped = torch.stack([step(ids[:, place : place + 1], state) for place in range(40)], dim=1)
    assert torch.allclose(stepped, plain, atol=1e-4), (stepped - plain).abs().max()
"""
LEARNS = """
import sys
sys.path.insert(0, "tests/helpers")
from coma_gen.model.conformer import Conformer
from coma_gen.model.reference import plain_logits
from small_models import small_params
params = small_params(window_sizes=(5, 20, 100)).model
draw = lambda *shape: torch.randint(0, 30, shape, generator=torch.Generator().manual_seed(len(shape)))

def losses(fast):
    model = Conformer(params=params, vocab_size=30, seed=0).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids, gradients = draw(1, 140), None
    for step in range(200):
        plain = dict(model.named_parameters())
        logits = model(ids[:, :-1]) if fast else plain_logits(plain, params=params, input_ids=ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        gradients = gradients or [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
        yield loss.detach()
    yield from gradients

with deterministic(1):
    for one, other in zip(losses(True), losses(False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)
"""
x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="pins x86-64 only")


@x86
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(PRODUCTS, id="products"),
        pytest.param(ONE_BY_ONE, id="one by one"),
        pytest.param(LEARNS, id="200 steps of learning", marks=pytest.mark.slow),
    ],
)
def test_numpys_products_give_what_torch_gives(script: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", PINNED + script], check=True)


@pytest.mark.slow
@x86
def test_they_are_taken_where_the_processor_is_pinned_and_nowhere_else() -> None:
    script = """
for others in ((1, torch.device("meta")), (2,)):
    with deterministic(*others):
        assert not replace_kernels.cache_info().currsize
with deterministic(1):
    assert replace_kernels.cache_info().currsize and is_pinned()
    assert not torch.backends.cuda.flash_sdp_enabled()
assert torch.backends.cuda.flash_sdp_enabled()
"""
    subprocess.run([sys.executable, "-c", PINNED + script], check=True)
    free = (
        PINNED.replace("pin=True", "pin=False")
        + """
with deterministic(1):
    assert not replace_kernels.cache_info().currsize and not is_pinned()
"""
    )
    subprocess.run([sys.executable, "-c", free], check=True)


@pytest.mark.parametrize("kind", ["none", "bool", "added"])
def test_attention_is_the_librarys(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, n, 8, generator=generator) for n in (1, 5, 5))
    visible = torch.tensor([False, True, True, True, True]).expand(2, 1, 1, 5)
    masks = {"none": None, "bool": visible, "added": torch.randn(2, 3, 1, 5, generator=generator)}
    expected = torch.nn.functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=masks[kind], scale=0.3
    )
    torch.testing.assert_close(attend(queries, keys, values, attn_mask=masks[kind], scale=0.3), expected)
