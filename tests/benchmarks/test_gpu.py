"""The GPU check runs on a CPU at a tiny size; gpu.sh runs each part with its time limit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tape
import torch

from benchmarks import gpu
from coma_gen.generation.recorded_steps import RecordedSteps
from coma_gen.generation.token_decoder import TokenDecoder
from coma_gen.model.conformer import Conformer
from coma_gen.model.cuda_graphs import Recorder

CPU = torch.device("cpu")
SCRIPT = Path(gpu.__file__).with_suffix(".sh")


@pytest.fixture(autouse=True)
def without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "compile_model", lambda *_, **__: False)


@pytest.mark.slow
def test_smoke_passes_on_a_cpu_and_reports_skipped_checks(capsys: pytest.CaptureFixture[str]) -> None:
    found = {name: (apart, limit) for name, apart, limit in gpu.smoke(gpu.maestro_size(small=True), CPU)}
    assert len(found) == 6 and all(apart <= limit for apart, limit in found.values()), found
    assert found["resumed after three steps, bits"] == (0.0, 0.0)
    assert capsys.readouterr().out == "no CUDA device\ntorch cannot compile\nno CUDA device\n"


def test_replayed_steps_are_compared_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoder(model: Conformer, *, record: Recorder = tape.record) -> TokenDecoder:
        return TokenDecoder(model, RecordedSteps(lambda: record))

    def refuses(_: object) -> Any:
        raise RuntimeError("no graphs")

    size = gpu.maestro_size(small=True)
    model, ids = gpu.ours(size, CPU), torch.ones(2, 120, dtype=torch.int64)
    monkeypatch.setattr(gpu, "TokenDecoder", decoder)
    assert gpu._replay_difference(model, ids) == 0.0
    monkeypatch.setattr(gpu, "TokenDecoder", partial(decoder, record=refuses))
    assert gpu._replay_difference(model, ids) == 1.0, "equal, but by the plain path"


def test_a_difference_is_found() -> None:
    one, other = torch.ones(3), torch.tensor([1.0, 1.0, 1.1])
    assert gpu.distance([one, one], [one, other]) == pytest.approx(0.1 / (3.21**0.5))
    assert gpu.bit_difference([one], [other]) == 1.0 and gpu.bit_difference([one], [one.clone()]) == 0.0


@pytest.mark.slow
def test_speed_has_a_line_for_each_mode() -> None:
    size = gpu.maestro_size(small=True)
    rows = {row[0]: row[1:] for row in gpu.training_rows(size, CPU, rounds=1, side=16)}
    assert rows["ours, bf16, compiled, CUDA graph"][0] == "AbsentError: torch cannot compile"
    assert rows["ours, bf16, CUDA graph"][0] == "AbsentError: no CUDA device"
    assert rows["ours, fp32"][0] == rows["ours, bf16"][0] and rows["ours, fp32"][4].endswith("%")
    assert {f"{name}, bf16" for name in gpu.PEERS} < rows.keys()
    decoded = {row[0]: row[1] for row in gpu.decoding_rows(size, CPU, (1, 3), tokens=1)}
    assert list(decoded) == ["1, eager", "1, CUDA graphs", "3, eager", "3, CUDA graphs"]
    assert decoded["3, CUDA graphs"] == "AbsentError: no CUDA device"


def test_rows_are_shown_as_they_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[list[str]]:
        yield ["first", "1"]
        assert capsys.readouterr().out.endswith("| first | 1 |\n")
        yield ["second", "2"]

    gpu.show(["mode", "ms"], rows())
    assert capsys.readouterr().out == "| second | 2 |\n\n"


@pytest.mark.slow
def test_peers_have_as_many_parameters() -> None:
    size = gpu.maestro_size(small=False)
    assert (size.batch, size.tokens) == (16, 2048)
    ours = gpu.unique_parameters(gpu.ours(size, CPU))
    for name in size.peer_ff_mults:
        assert gpu.unique_parameters(gpu.PEERS[name](size)) == pytest.approx(ours, rel=0.01)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """An unpacked job, and a fake Python that records its arguments; training writes metrics."""
    root = SCRIPT.parents[1]
    for name in ("src", "benchmarks"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
[ "$1" = -c ] && exec {sys.executable} "$@"
echo "passed: $*"; echo "| $* |"; echo "12:00 | WARNING | of another package"
echo "$*" >> {tmp_path}/ran
[ "$*" = stages/train.py ] || exit 0
[ -z "$SLOW" ] || sleep 60
mkdir -p metrics; echo '{{}}' > metrics/train.json
"""
    )
    python.chmod(0o755)
    return tmp_path


def gpu_script(job: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT)],
        cwd=job,
        env={**os.environ, "PYTHON": str(job / "python"), "SMALL": "--small", **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def with_minutes(job: Path, minutes: float) -> None:
    params = job / "params.yaml"
    params.write_text(params.read_text().replace("max_minutes: null", f"max_minutes: {minutes}"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
class TestScript:
    def test_runs_each_part_and_leaves_a_summary(self, job: Path) -> None:
        with_minutes(job, 8.5)
        done = gpu_script(job)
        assert done.returncode == 0, done.stderr
        assert (job / "ran").read_text().splitlines() == [
            "-m benchmarks.gpu smoke --small",
            "-m benchmarks.gpu speed --small",
            "stages/train.py",
            "-m coma_gen.workspace.carry pack out/parcel --part-mb 15",
        ]
        assert done.stdout == (job / "out" / "summary.txt").read_text()
        assert "\n| -m benchmarks.gpu speed --small |\n" in done.stdout
        assert "another package" not in done.stdout.partition("parcel")[0]
        limits = [line.split()[-1] for line in done.stdout.splitlines() if "most" in line]
        assert limits == ["130", "150", "570", "60"], done.stdout
        assert {path.name for path in (job / "out").iterdir()} == {
            f"{name}.log" for name in ("smoke", "speed", "train", "parcel")
        } | {"summary.txt"}

    def test_one_part_alone_and_a_training_that_does_not_end(self, job: Path) -> None:
        with_minutes(job, 0.001)
        text = SCRIPT.read_text()
        assert text.count("+ 60)") == 1
        quick = job / "quick.sh"
        quick.write_text(text.replace("+ 60)", "+ 1)"))
        done = subprocess.run(
            ["bash", str(quick)],
            cwd=job,
            env={**os.environ, "PYTHON": str(job / "python"), "PARTS": "train", "SLOW": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 1 and "train: status 124" in done.stdout and "parcel" not in done.stdout

    def test_no_deadline_is_refused_before_anything_runs(self, job: Path) -> None:
        done = gpu_script(job)
        assert done.returncode == 2 and "train.max_minutes: must be set" in done.stdout
        assert not (job / "ran").exists()
