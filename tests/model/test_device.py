"""Device selection, and restored global settings."""

from __future__ import annotations

import pytest
import torch

from coma_gen.core.errors import UserError
from coma_gen.model.device import choose_device, computes_bf16, deterministic, reseed
from coma_gen.training.stage import warn_of_bf16


def test_cpu_and_auto() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cuda", "mps", "cpu")


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu"])
def test_an_absent_device_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=rf"runtime\.device: must be .*\(cpu\).* got {name}"):
        choose_device(name)


def test_the_best_device_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"


@pytest.mark.parametrize("found", [{}, {"avx2": True, "avx512_bf16": False}])
def test_a_cpu_without_instructions_for_bf16_is_told(
    found: dict[str, bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert not computes_bf16(torch.device("cpu")) and computes_bf16(torch.device("cuda"))
    warn_of_bf16(torch.device("cuda"))
    assert not caplog.messages
    warn_of_bf16(torch.device("cpu"))
    assert ["emulates bf16" in message for message in caplog.messages] == [True]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**found, "amx_bf16": True})
    assert computes_bf16(torch.device("cpu"))


def test_settings_hold_inside_and_come_back() -> None:
    threads, enabled = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with pytest.raises(KeyError), deterministic(2):
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        raise KeyError
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, enabled)


def test_reseeding_repeats_the_draws() -> None:
    reseed(torch.device("cpu"), 7)
    first = torch.rand(4)
    torch.rand(3)
    reseed(torch.device("cpu"), 7)
    assert torch.equal(torch.rand(4), first)
