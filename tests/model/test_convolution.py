"""The causal convolution: its hand-written gradients, causality and cache."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coma_gen.model import convolution
from coma_gen.model.convolution import CausalConvolution, _DepthwiseConvolution, _TapsFn


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kernel,length", [(1, 4), (3, 1), (3, 7), (5, 2), (31, 5)])
def test_gradients(kernel: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "GRADIENT_BLOCK", 4)
    arguments = (vectors(2, length + kernel - 1, 3), vectors(3, kernel, seed=1), vectors(3, seed=2))
    for way in WAYS.values():
        assert torch.autograd.gradcheck(way.apply, [part.requires_grad_() for part in arguments])


def test_taps_of_bfloat16_are_added_up_in_float32() -> None:
    x, weight = vectors(2, 60, 8).bfloat16().requires_grad_(), vectors(8, 31, seed=1).float().requires_grad_()
    bias = vectors(8, seed=2).float().requires_grad_()
    result = _TapsFn.apply(x, weight, bias)
    exact = _TapsFn.apply(x.double(), weight.double(), bias.double())
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, exact.bfloat16(), rtol=0, atol=0)
    of_x, of_weight, _ = torch.autograd.grad(result.float().square().sum(), (x, weight, bias))
    assert (of_x.dtype, of_weight.dtype) == (torch.bfloat16, torch.float32)


WAYS = {"as written": _DepthwiseConvolution, "for a compiler": _TapsFn}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-3)])
@pytest.mark.parametrize("length", [1, 31, 200])
def test_equals_conv1d(way: str, dtype: torch.dtype, tolerance: float, length: int) -> None:
    x = vectors(2, length + 30, 16).to(dtype).requires_grad_()
    weight = vectors(16, 31, seed=1).to(dtype).requires_grad_()
    bias = vectors(16, seed=3).to(dtype).requires_grad_()
    upstream = vectors(2, length, 16, seed=2).to(dtype)
    ours = WAYS[way].apply(x, weight, bias)
    theirs = F.conv1d(x.transpose(1, 2), weight[:, None], bias, groups=16).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    for actual, wanted in zip(
        torch.autograd.grad(ours, (x, weight, bias), upstream),
        torch.autograd.grad(theirs, (x, weight, bias), upstream),
        strict=True,
    ):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kernel", [1, 2, 8])
def test_a_token_depends_on_itself_and_the_kernel_before_it(kernel: int) -> None:
    module = CausalConvolution(dim=6, expansion=2, kernel_size=kernel, dropout=0.0).double()
    x = vectors(1, 20, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(module(x)[0, 12].sum(), x)
    reached = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
    assert reached == list(range(12 - kernel + 1, 13))


def test_chunks_with_their_history_equal_the_whole() -> None:
    module = CausalConvolution(dim=6, expansion=2, kernel_size=5, dropout=0.0).double()
    x = vectors(2, 20, 6)
    state = module.init_cache(2, capacity=1)
    parts = [module(chunk, state) for chunk in x.split([1, 2, 9, 1, 7], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), module(x), rtol=0, atol=1e-12)
