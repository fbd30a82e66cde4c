"""A stage process ends with the right status, reports faults, and ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coma_gen.workspace.preflight import explain_restore

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {src!r})
from coma_gen.core.errors import Fault, UserError
from coma_gen.workspace.stage import run_stage

def stage(params, workspace):
    (workspace.root / "started").write_text(str(params.runtime.threads))
    {body}

run_stage(stage, Path({root!r}))
"""


def script(folder: Path, body: str) -> list[str]:
    if not (folder / "params.yaml").exists():
        (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    text = SCRIPT.format(src=str(ROOT / "src"), body=body, root=str(folder))
    (folder / "stage.py").write_text(text)
    return [sys.executable, str(folder / "stage.py")]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ("pass", 0, ""),
        (
            "raise UserError(Fault('a.csv, row 3', 'must be there', 'none'), Fault('b', 'c'))",
            1,
            "a.csv, row 3: must be there",
        ),
        (
            "raise OSError(28, 'No space left on device', 'data/model')",
            1,
            "data/model: No space left on device",
        ),
        ("bytearray(2**60)", 1, "memory: must find enough memory"),
        (
            "import numpy; numpy.empty(2**50)",
            1,
            "memory: must find enough memory, got Unable to allocate 8.00 PiB",
        ),
        ("import torch; torch.empty(2**50)", 1, "can't allocate memory: you tried to allocate"),
    ],
)
def test_status_and_words(body: str, status: int, text: str, tmp_path: Path) -> None:
    done = subprocess.run(script(tmp_path, body), capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_params_stop_it_before_any_work(tmp_path: Path) -> None:
    text = (
        (ROOT / "params.yaml")
        .read_text()
        .replace("  steps:", "  stepps:")
        .replace("threads: 1", "threads: 0")
    )
    (tmp_path / "params.yaml").write_text(text)
    done = subprocess.run(script(tmp_path, "pass"), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "runtime.threads" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly(number: signal.Signals, tmp_path: Path) -> None:
    running = subprocess.Popen(script(tmp_path, "time.sleep(60)"), stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "started")
    running.send_signal(number)
    _, stderr = running.communicate(timeout=20)
    assert running.returncode == 128 + number
    assert "Traceback" not in stderr and "Interrupted" in stderr


@pytest.mark.slow
def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    command = script(tmp_path, "Path('pid').write_text(str(__import__('os').getpid())); time.sleep(60)")
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"])
    wait_for(tmp_path / "pid")
    child = int((tmp_path / "pid").read_text() or 0)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the stage outlived its parent")


def test_the_explain_restore_is_told_where_results_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dvc.lock").write_text("")
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert explain_restore(tmp_path) == ""
    monkeypatch.setenv("DVC_STAGE", "check")  # whose result nobody misses
    assert explain_restore(tmp_path) == ""
    monkeypatch.setenv("DVC_STAGE", "train")
    assert "`dvc checkout`" in explain_restore(tmp_path)
