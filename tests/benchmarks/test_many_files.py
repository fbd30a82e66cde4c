"""The benchmark of many files: costs of a stage and its worker are measured, and extrapolation is linear."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.many_files import POLL_SECONDS, _extrapolate, main, measure_stage

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="memory is read from /proc")
MEGABYTES = 64 * 2**20


def test_a_stage_and_its_worker_are_measured(tmp_path: Path) -> None:
    hungry = f"import time; kept = bytearray({4 * MEGABYTES}); time.sleep({20 * POLL_SECONDS})"

    def stage(work_dir: Path, workers: int) -> None:
        assert (work_dir, workers) == (tmp_path, 3)
        subprocess.run([sys.executable, "-c", hungry], check=True)
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass

    cost = measure_stage(stage, tmp_path, 3)
    assert cost.seconds > 0.1
    assert 4 * MEGABYTES < cost.worker_peak < 8 * MEGABYTES
    assert cost.peak > 2**20


def test_what_is_said_of_a_million_lies_on_a_line() -> None:
    assert _extrapolate({100: 30.0, 200: 40.0, 400: 60.0}) == pytest.approx((0.1, 100_020.0))
    slope, whole = _extrapolate({100: 60.0, 200: 40.0, 400: 30.0})
    assert slope == 0.0 and whole < 100.0, "less for more is noise"


@pytest.mark.parametrize("counts", [["500"], ["20", "500"]])
def test_too_few_files_are_refused(counts: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--counts", *counts])
    assert stopped.value.code == 2
