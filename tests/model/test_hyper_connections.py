"""Hyper-connections against the package of that name, S = 1 against the plain residual."""

from __future__ import annotations

import pytest
import torch
from hyper_connections.hyper_connections import HyperConnections
from torch import Tensor

from coma_gen.model.hyper_connections import HyperConnection, _ProductsFn, _ReadStreamsFn, _WriteStreamsFn

DIM = 10


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_any_weights(num_streams: int) -> HyperConnection:
    ours = HyperConnection(dim=DIM, num_streams=num_streams, first_stream=1).double()
    with torch.no_grad():
        for seed, parameter in enumerate(ours.parameters()):
            parameter.add_(vectors(*parameter.shape, seed=seed))
    return ours


@pytest.mark.parametrize("num_streams", [2, 3, 4])
def test_equals_the_package_with_any_dynamics(num_streams: int) -> None:
    ours, branch = with_any_weights(num_streams), torch.nn.Linear(DIM, DIM).double()
    theirs = HyperConnections(num_streams, dim=DIM, layer_index=1, branch=branch).double()
    with torch.no_grad():
        theirs.norm.gamma.copy_(ours.gain - 1)
        theirs.static_alpha.copy_(ours.static[:, :-1])
        theirs.static_beta.copy_(ours.static[:, -1])
        theirs.dynamic_alpha_fn.copy_(ours.dynamic[:, :-1])
        theirs.dynamic_beta_fn.copy_(ours.dynamic[:, -1])
        theirs.dynamic_alpha_scale.copy_(ours.dynamic_scale[0])
        theirs.dynamic_beta_scale.copy_(ours.dynamic_scale[1])
    streams = vectors(3, 5, num_streams, DIM, seed=20).requires_grad_()
    mine = ours(streams, branch)
    package = theirs(streams.permute(0, 2, 1, 3).flatten(0, 1)).unflatten(0, (3, num_streams)).transpose(1, 2)
    torch.testing.assert_close(mine, package, rtol=0, atol=1e-11)
    weight = vectors(*mine.shape, seed=21)
    of = [streams, *branch.parameters()]
    gradients = torch.autograd.grad((mine * weight).sum(), [*of, *ours.parameters()])
    expected = torch.autograd.grad((package * weight).sum(), [*of, *theirs.parameters()], allow_unused=True)
    for actual, wanted in zip(gradients, expected[: len(of)], strict=False):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-10)
    named = dict(zip([name for name, _ in theirs.named_parameters()], expected[len(of) :], strict=True))
    mine_named = dict(zip([name for name, _ in ours.named_parameters()], gradients[len(of) :], strict=True))
    torch.testing.assert_close(mine_named["gain"], named["norm.gamma"], rtol=0, atol=1e-10)
    torch.testing.assert_close(mine_named["static"][:, :-1], named["static_alpha"], rtol=0, atol=1e-10)
    torch.testing.assert_close(mine_named["static"][:, -1], named["static_beta"], rtol=0, atol=1e-10)
    torch.testing.assert_close(mine_named["dynamic"][:, :-1], named["dynamic_alpha_fn"], rtol=0, atol=1e-10)
    torch.testing.assert_close(
        mine_named["dynamic_scale"][1], named["dynamic_beta_scale"], rtol=0, atol=1e-10
    )


def test_gradients_of_the_mixing() -> None:
    shapes = [(3, 2, 5), (5,), (5, 4), (2, 4), (2,)]
    arguments = [vectors(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(_ReadStreamsFn.apply, arguments)


def test_gradients_of_writing() -> None:
    carried, beta, output = vectors(3, 2, 5), vectors(3, 2, 1, seed=1), vectors(3, 1, 5, seed=2)
    written = _WriteStreamsFn.apply(carried.clone(), beta, output)
    torch.testing.assert_close(written, carried + beta * output, rtol=0, atol=1e-12)
    arguments = [part.requires_grad_() for part in (carried, beta, output)]
    assert torch.autograd.gradcheck(lambda x, *others: _WriteStreamsFn.apply(x * 1, *others), arguments)


def test_gradients_of_the_products_for_a_compiler() -> None:
    stream, weight = vectors(2, 3, 5).requires_grad_(), vectors(5, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: _ProductsFn.apply(x, w, x.detach()), (stream, weight))
    products = _ProductsFn.apply(stream, weight, stream.detach())
    torch.testing.assert_close(products, stream @ weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_streams", [1, 2, 4])
def test_what_is_compiled_is_the_same_function(num_streams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formulas of single streams, here not compiled: results and every gradient."""
    ours, branch = with_any_weights(num_streams), torch.nn.Linear(DIM, DIM).double()
    streams = vectors(3, 5, num_streams, DIM, seed=20).requires_grad_()
    weight, of = vectors(*streams.shape, seed=21), [streams, *branch.parameters(), *ours.parameters()]
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda answer=compiling: answer)
        result = ours(streams, branch)
        found.append([result, *torch.autograd.grad((result * weight).sum(), of)])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("num_streams", [1, 4])
def test_streams_in_bfloat16_are_computed_in_float32_and_rounded_once(
    num_streams: int, compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with float32 streams of the same values, result and gradients rounded at the end."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    ours, branch = with_any_weights(num_streams).float(), torch.nn.Linear(DIM, DIM)
    streams = vectors(3, 5, num_streams, DIM, seed=20).bfloat16()
    weight, of = vectors(*streams.shape, seed=21).bfloat16(), [*branch.parameters(), *ours.parameters()]
    found = []
    for start in (streams.float().requires_grad_(), streams.requires_grad_()):
        result = ours(start, branch)
        assert result.dtype == start.dtype
        gradients = torch.autograd.grad((result * weight.to(result.dtype)).sum(), [start, *of])
        found.append([part.to(start.dtype) for part in (result, gradients[0])] + list(gradients[1:]))
    exact, rounded = found
    for wanted, got in zip(exact[:2], rounded[:2], strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got, wanted.bfloat16(), rtol=0, atol=0)
    products = {id(ours.gain), id(ours.dynamic)} if compiling and num_streams > 1 else set()
    for parameter, wanted, got in zip(of, exact[2:], rounded[2:], strict=True):
        limit = 0.01 if id(parameter) in products else 0.0  # those of a product in bfloat16
        assert (got - wanted).norm() <= limit * wanted.norm()


@pytest.mark.parametrize("compiling", [False, True])
def test_streams_of_zeros_have_finite_gradients(compiling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    streams = torch.zeros(1, 1, 4, DIM, dtype=torch.float64, requires_grad=True)
    with_any_weights(4)(streams, torch.sin).sum().backward()
    assert streams.grad is not None and torch.isfinite(streams.grad).all()


def test_one_stream_is_the_plain_residual_without_parameters() -> None:
    connection = HyperConnection(dim=DIM, num_streams=1, first_stream=0)
    x = vectors(2, 3, 1, DIM)
    assert torch.equal(connection(x, torch.sin), x + torch.sin(x))
    assert not list(connection.parameters())


def test_at_the_start_one_stream_is_read_and_all_are_written() -> None:
    connection = HyperConnection(dim=DIM, num_streams=4, first_stream=2).double()
    streams = vectors(2, 3, 4, DIM)
    expected = streams + torch.sin(streams[:, :, 2:3])
    torch.testing.assert_close(connection(streams, torch.sin), expected, rtol=0, atol=1e-12)
