"""The compiled model: the same numbers, parameters and names, and a plain path where there is no compiler."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coma_gen.model.compile import compile_model
from coma_gen.model.conformer import Conformer

CPU = torch.device("cpu")
has_compiler = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def gradients(model: Conformer, ids: torch.Tensor) -> list[torch.Tensor]:
    """Of the mean square of the logits, and those."""
    torch.manual_seed(0)  # dropouts
    logits = model(ids)
    return [logits, *torch.autograd.grad(logits.square().mean(), list(model.parameters()))]


@pytest.fixture
def broken_compiler(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[int]:
    """A compiler that fails when it is asked, or when what it made is run; and how often it was asked."""
    asked: list[int] = []

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C++ compiler\nand many lines more")

    def broken(*_: Any, **__: Any) -> Callable[..., Any]:
        asked.append(1)
        return fail if request.param == "at the first run" else fail()

    monkeypatch.setattr(torch, "compile", broken)
    return asked


@pytest.mark.parametrize("broken_compiler", ["when asked", "at the first run"], indirect=True)
def test_without_a_compiler_one_line_says_so_and_the_plain_path_goes_on(
    broken_compiler: list[int],
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, plain = make_model(attention_dropout=0.2).train(), make_model(attention_dropout=0.2).train()
    switch = compile_model(model, length=20, device=CPU)
    assert switch.is_on and not broken_compiler  # nothing is compiled before it is wanted
    with caplog.at_level(logging.WARNING):
        found = [gradients(model, some_ids(2, 20)) for _ in range(2)]
    for got, wanted in zip(found[0], gradients(plain, some_ids(2, 20)), strict=True):
        assert torch.equal(got, wanted)
    assert not switch.is_on and len(broken_compiler) == 1
    (line,) = caplog.messages
    assert line == (
        "train.compile: torch cannot compile here, going on without. RuntimeError: no C++ compiler"
    )


def test_only_what_learns_is_compiled_and_names_stay(
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda plain, **_: pytest.fail("nothing is to be learned"))
    model, plain = make_model(), make_model()
    compile_model(model, length=20, device=CPU)
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
    switch = compile_model(model, length=40, device=CPU)
    got = gradients(model, some_ids(2, 40))
    assert switch.is_on
    for one, other in zip(got, gradients(plain, some_ids(2, 40)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
