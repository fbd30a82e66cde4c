"""The script for a GPU runs, on a CPU and at a size that means nothing, and follows the code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

CPU = torch.device("cpu")
SCRIPT = Path(gpu.__file__).with_suffix(".sh")


@pytest.fixture(autouse=True)
def without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "compile_model", lambda *_, **__: False)


@pytest.mark.slow
def test_smoke_holds_on_a_cpu_and_says_what_is_not_tried(capsys: pytest.CaptureFixture[str]) -> None:
    found = {name: (apart, limit) for name, apart, limit in gpu.smoke(gpu.maestro_size(small=True), CPU)}
    assert len(found) == 5 and all(apart <= limit for apart, limit in found.values()), found
    assert found["stopped after three steps and gone on with, bits"] == (0.0, 0.0)
    assert capsys.readouterr().out == "torch cannot compile\nno CUDA device\n"


def test_a_difference_is_found() -> None:
    one, other = torch.ones(3), torch.tensor([1.0, 1.0, 1.1])
    assert gpu.distance([one, one], [one, other]) == pytest.approx(0.1 / (3.21**0.5))
    assert gpu.same_bits([one], [other]) == 1.0 and gpu.same_bits([one], [one.clone()]) == 0.0


@pytest.mark.slow
def test_speed_has_a_line_for_each_mode() -> None:
    size = gpu.maestro_size(small=True)
    rows = {row[0]: row[1:] for row in gpu.training_rows(size, CPU, rounds=1, side=16)}
    assert rows["ours, bf16, compiled, CUDA graph"][0] == "AbsentError: torch cannot compile"
    assert rows["ours, bf16, CUDA graph"][0] == "AbsentError: no CUDA device"
    assert rows["ours, fp32"][0] == rows["ours, bf16"][0] and rows["ours, fp32"][4].endswith("%")
    assert {f"{name}, bf16" for name in gpu.PEERS} < rows.keys()
    decoded = list(gpu.decoding_rows(size, CPU, (1, 3), tokens=1))
    assert [row[0] for row in decoded] == ["1", "3"]


@pytest.mark.slow
def test_peers_have_as_many_parameters() -> None:
    size = gpu.maestro_size(small=False)
    assert (size.batch, size.tokens) == (16, 2048)
    ours = gpu.unique_parameters(gpu.ours(size, CPU))
    for name in size.peer_ff_mults:
        assert gpu.unique_parameters(gpu.PEERS[name](size)) == pytest.approx(ours, rel=0.01)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_prepared_script_names_what_is_there() -> None:
    text = SCRIPT.read_text()
    for part in (
        "benchmarks.gpu smoke",
        "benchmarks.gpu speed",
        "stages/train.py",
        "coma_gen.workspace.carry pack",
    ):
        assert part in text
