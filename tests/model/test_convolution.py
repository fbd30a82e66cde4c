"""The causal convolution: its hand-written gradients, its causality, its history."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from coma_gen.model import convolution
from coma_gen.model.convolution import CausalConvolution, _DepthwiseConvolution


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kernel,length", [(1, 4), (3, 1), (3, 7), (5, 2), (31, 5)])
def test_gradients(kernel: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "GRADIENT_BLOCK", 4)
    arguments = (vectors(2, length + kernel - 1, 3), vectors(3, kernel, seed=1), vectors(3, seed=2))
    assert torch.autograd.gradcheck(
        _DepthwiseConvolution.apply, [part.requires_grad_() for part in arguments]
    )


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-3)])
@pytest.mark.parametrize("length", [1, 31, 200])
def test_equals_conv1d(dtype: torch.dtype, tolerance: float, length: int) -> None:
    x = vectors(2, length + 30, 16).to(dtype).requires_grad_()
    weight = vectors(16, 31, seed=1).to(dtype).requires_grad_()
    bias = vectors(16, seed=3).to(dtype).requires_grad_()
    upstream = vectors(2, length, 16, seed=2).to(dtype)
    ours = _DepthwiseConvolution.apply(x, weight, bias)
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
    state = module.init_cache(2, room=1)
    parts = [module(chunk, state) for chunk in x.split([1, 2, 9, 1, 7], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), module(x), rtol=0, atol=1e-12)
