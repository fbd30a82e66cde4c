"""The compiled model: equal outputs, parameters and names; an eager path without a compiler."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coma_gen.model import compile as compiling
from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.compile import compile_model, flex_obstacle
from coma_gen.model.conformer import Block, Conformer

CPU = torch.device("cpu")
has_compiler = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def gradients(model: Conformer, ids: torch.Tensor) -> list[torch.Tensor]:
    """Of the mean square of the logits, and those."""
    torch.manual_seed(0)  # dropouts
    logits = model(ids)
    return [logits, *torch.autograd.grad(logits.square().mean(), list(model.parameters()))]


class BrokenBackward(torch.autograd.Function):
    """What nothing is wrong with until it is differentiated."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, _: torch.Tensor) -> torch.Tensor:
        return fail()


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no C++ compiler\nand many lines more")


def broken_in_backward(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled as Inductor does it: the backward pass, and what is wrong with it, when it is first run."""
    return lambda *args, **kwargs: [BrokenBackward.apply(each) for each in plain(*args, **kwargs)]


BROKEN: dict[str, Callable[..., Any]] = {
    "when asked": fail,
    "in the forward pass": lambda *_, **__: fail,
    "in the backward pass": lambda plain, **__: broken_in_backward(plain),
}


def warm_up_pass(model: Conformer, ids: torch.Tensor) -> Callable[[], object]:
    """Both passes, as training takes them."""
    return lambda: model(ids).square().mean().backward()


@pytest.mark.parametrize("way", BROKEN)
def test_without_a_compiler_one_line_says_so_and_the_plain_path_goes_on(
    way: str,
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch, "compile", BROKEN[way])
    model, plain = make_model(attention_dropout=0.2).train(), make_model(attention_dropout=0.2).train()
    ids = some_ids(2, 20)
    with caplog.at_level(logging.WARNING):
        assert not compile_model(model, length=20, device=CPU, warm_up=warm_up_pass(model, ids))
        found = gradients(model, ids)
    for got, wanted in zip(found, gradients(plain, ids), strict=True):
        assert torch.equal(got, wanted)
    assert all(parameter.grad is None for parameter in model.parameters()), "no gradient is left behind"
    (line,) = caplog.messages
    assert line == (
        "train.compile: torch cannot compile here; training runs in eager mode. RuntimeError: no C++ compiler"
    )


def test_memory_that_runs_out_is_no_fault_of_the_compiler(
    make_model: Callable[..., Conformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted() -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with pytest.raises(RuntimeError, match="out of memory"):
        compile_model(make_model(), length=20, device=CPU, warm_up=exhausted)


def test_what_fails_after_the_warm_up_pass_is_raised(
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs: list[int] = []

    def breaks_later(plain: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            runs.append(1)
            return plain(*args, **kwargs) if len(runs) <= 2 else fail()

        return run

    monkeypatch.setattr(torch, "compile", breaks_later)
    model, ids = make_model(num_layers=2).train(), some_ids(2, 20)
    assert compile_model(model, length=20, device=CPU, warm_up=warm_up_pass(model, ids))
    with pytest.raises(RuntimeError, match="no C"):
        model(ids)


@pytest.mark.parametrize(
    ("changes", "length", "reason"),
    [
        ({"window_sizes": (4, 16), "attention_position": "xpos"}, 128, None),
        ({"window_sizes": (4, 16), "attention_position": "xpos"}, 129, "129, more than 128"),
        ({"window_sizes": (100,), "attention_position": "rotary"}, 2049, "2049, more than 2048"),
        ({"window_sizes": (4,), "attention_position": "none"}, 10_000, None),
        ({"attention_dropout": 0.1}, 8, "model.attention_dropout is 0.1, not 0"),
    ],
)
def test_why_flex_attention_is_not_used_is_said(
    changes: dict[str, Any], length: int, reason: str | None, make_model: Callable[..., Conformer]
) -> None:
    model = make_model(**changes)
    attention = next(module for module in model.modules() if isinstance(module, MultiScaleAttention))
    found = flex_obstacle(attention, length)
    assert found is None if reason is None else reason in str(found)


def test_on_a_gpu_blocks_are_compiled_and_one_line_says_what_is_slow(
    make_model: Callable[..., Conformer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bands: list[int] = []
    monkeypatch.setattr(
        compiling, "_build_flex_band", lambda _attention, length, _device: bands.append(length)
    )
    gpu = torch.device("cuda")
    model = make_model(num_layers=2)
    assert compile_model(model, length=20, device=gpu, warm_up=list) and bands == [20, 20]
    assert all(isinstance(block.forward, compiling.Compiled) for block in model.blocks)
    with caplog.at_level(logging.WARNING):
        compile_model(make_model(num_layers=2, attention_dropout=0.5), length=20, device=gpu, warm_up=list)
    (line,) = caplog.messages
    assert line.startswith("train.compile: no FlexAttention") and "attention_dropout is 0.5" in line


def test_only_what_learns_is_compiled_and_names_stay(
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda plain, **_: pytest.fail("nothing is to be learned"))
    model, plain = make_model(), make_model()
    compile_model(model, length=20, device=CPU, warm_up=list)
    with torch.no_grad():
        assert torch.equal(model(some_ids(1, 20)), plain(some_ids(1, 20)))
        state = model.init_cache(1)
        model(some_ids(1, 20), state)
        model(some_ids(1, 1), state)
    assert list(model.state_dict()) == list(plain.state_dict())


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own imports warn; what matters is compared
def test_compiled_is_equal_to_plain(
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outputs and every gradient, dropouts included."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    settings = {"num_layers": 1, "attention_dropout": 0.3, "ff_dropout": 0.3}
    model, plain = make_model(**settings).train(), make_model(**settings).train()
    ids = some_ids(2, 40)
    assert compile_model(model, length=40, device=CPU, warm_up=warm_up_pass(model, ids))
    got = gradients(model, ids)
    for one, other in zip(got, gradients(plain, ids), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_streams_and_taps_are_one_graph_for_a_compiler(make_params: Callable[..., Any]) -> None:
    """Traced without a break and differentiated, as on a GPU; its kernels are the plain ones. Attention is
    left out: what it is there, a CPU has no gradient of.
    """
    params = make_params(branches=("half_feed_forward", "convolution"), kernel_size=9)
    block = Block(params=params, index=0, seed=0).double()
    for parameter in block.parameters():
        torch.nn.init.uniform_(parameter, -0.3, 0.3)
    block.train()
    streams = torch.rand(2, 12, params.num_streams, params.dim, dtype=torch.float64, requires_grad=True)
    of = [streams, *block.parameters()]
    whole = torch.compile(block.forward, dynamic=False, fullgraph=True, backend="aot_eager")
    found = []
    for way in (block.forward, whole):
        result = way(streams)
        found.append([result, *torch.autograd.grad(result.square().sum(), of)])
    for plain, traced in zip(*found, strict=True):
        torch.testing.assert_close(traced, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_streams_in_bfloat16_are_what_a_compiler_keeps(make_params: Callable[..., Any]) -> None:
    """For the backward pass of a block, and not the float32 that is computed of them."""
    params = make_params(branches=("half_feed_forward", "half_feed_forward"), num_streams=8)
    block = Block(params=params, index=0, seed=0).float().train()
    streams = torch.rand(2, 12, params.num_streams, params.dim).bfloat16().requires_grad_()
    saved: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    fused = torch.compile(block.forward, dynamic=False, fullgraph=True, backend="aot_eager_decomp_partition")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = fused(streams)
    of_streams = [t for t in saved.values() if t.untyped_storage().nbytes() >= 2 * streams.numel()]
    assert [t.dtype for t in of_streams] == [torch.bfloat16] * 2
    (gradient,) = torch.autograd.grad(result.float().square().mean(), streams)
    assert result.dtype == gradient.dtype == torch.bfloat16 and gradient.isfinite().all()
