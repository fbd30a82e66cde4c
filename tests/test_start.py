"""The start of a stage: only in the project's environment, and not after its parent has ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from subprocess_utils import environment, wait_until

ROOT = Path(__file__).resolve().parents[1]
STUB = """
import sys
def run_stage(stage, root, **given):
    print("ran in", sys.prefix, given["by_dvc"])
"""
PROBE = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
from _start import run
run(None)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Only how a stage starts, and a library that says where it runs."""
    folder = tmp_path / "check out"
    library = folder / "src" / "coma_gen" / "workspace"
    library.mkdir(parents=True)
    for package in (library, library.parent):
        (package / "__init__.py").touch()
    (library / "stage.py").write_text(STUB)
    (folder / "stages").mkdir()
    shutil.copy(ROOT / "stages" / "_start.py", folder / "stages")
    (folder / "stages" / "probe.py").write_text(PROBE)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of another environment, in which nothing of ours is installed."""
    return make_environment(tmp_path_factory.mktemp("other") / "env")


def make_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


def started(python: Path | str, checkout: Path, **env: str) -> tuple[int, str]:
    """Exit status and output of a stage that this interpreter was found for."""
    done = subprocess.run(
        [str(python), str(checkout / "stages" / "probe.py")],
        env=environment() | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


class TestEnvironment:
    def test_whatever_comes_first_on_the_path_the_stage_runs_in_venv(
        self, checkout: Path, bare: Path
    ) -> None:
        make_environment(checkout / ".venv")
        for python in (bare, sys.executable, checkout / ".venv" / "bin" / "python"):
            assert started(python, checkout) == (0, f"ran in {checkout}/.venv False\n")
            assert started(python, checkout, DVC_STAGE="train") == (0, f"ran in {checkout}/.venv True\n")

    def test_a_copy_of_the_checkout_runs_in_the_venv_of_the_one_that_lasts(
        self, checkout: Path, bare: Path, tmp_path: Path
    ) -> None:
        make_environment(tmp_path / "home" / ".venv")
        status, output = started(bare, checkout, DVC_ROOT=str(tmp_path / "home"))
        assert (status, output) == (0, f"ran in {tmp_path}/home/.venv False\n")

    def test_without_one_dvc_may_use_only_where_it_is_installed(self, checkout: Path, bare: Path) -> None:
        status, output = started(bare, checkout, DVC_STAGE="train")
        assert status == 1 and "ran in" not in output and "Traceback" not in output
        assert f"{bare}: must be a Python that coma-gen is installed in" in output
        assert "make .venv/.installed" in output
        assert started(sys.executable, checkout, DVC_STAGE="train")[0] == 0

    def test_who_starts_a_stage_by_hand_chooses_the_interpreter(self, checkout: Path, bare: Path) -> None:
        assert started(bare, checkout)[0] == 0

    def test_a_venv_whose_interpreter_is_gone_is_named(self, checkout: Path, bare: Path) -> None:
        python = checkout / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(checkout / "gone")
        status, output = started(bare, checkout)
        assert status == 1 and "ran in" not in output and "must lead to an interpreter" in output

    @pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "stages").glob("[a-z]*.py")))
    def test_a_python_that_does_not_look_beside_the_script_is_told_to(self, name: str) -> None:
        script = f"import runpy; runpy.run_path({str(ROOT / 'stages' / name)!r}, run_name='looked at')"
        subprocess.run([sys.executable, "-P", "-c", script], env=environment(), check=True)


WAITING = """
import sys, time
from pathlib import Path
sys.path.insert(0, {stages!r})
import _start
here = Path({folder!r})
(here / "up").write_text(str(__import__("os").getpid()))
deadline = time.monotonic() + 60
while not (here / "go on").exists() and time.monotonic() < deadline:
    time.sleep(0.02)

def stage(params, workspace):
    (here / "worked").touch()

sys.path.insert(0, {src!r})
from coma_gen.workspace.stage import run_stage
run_stage(stage, here, parent=_start.PARENT, by_dvc=_start.BY_DVC)
"""


class TestParent:
    @pytest.fixture
    def script(self, tmp_path: Path) -> Path:
        shutil.copy(ROOT / "params.yaml", tmp_path)
        paths = {"stages": str(ROOT / "stages"), "src": str(ROOT / "src")}
        path = tmp_path / "waiting.py"
        path.write_text(WAITING.format(folder=str(tmp_path), **paths))
        return path

    @pytest.mark.slow
    def test_one_that_ends_while_the_stage_is_still_starting_takes_it_along(self, script: Path) -> None:
        """`dvc` is killed between the script's first line and the first look at its parent."""
        here, command = script.parent, [sys.executable, str(script)]
        parent = subprocess.Popen(
            [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"], env=environment()
        )
        wait_until((here / "up").exists)
        parent.kill()
        parent.wait()
        child = int((here / "up").read_text())
        (here / "go on").touch()
        wait_until(lambda: not _is_alive(child))
        assert not (here / "worked").exists()

    def test_one_that_was_gone_before_the_first_line_is_missed_by_dvc_s_lock(self, script: Path) -> None:
        here = script.parent
        (here / "go on").touch()
        lock = here / ".dvc" / "tmp" / "rwlock"
        lock.parent.mkdir(parents=True)
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        for pid, status in ((gone.pid, 128 + signal.SIGTERM), (os.getpid(), 0)):
            lock.write_text(json.dumps({"write": {"data/model": {"pid": pid, "cmd": "dvc repro"}}}))
            env = environment() | {"DVC_STAGE": "train"}
            done = subprocess.run([sys.executable, str(script)], env=env, check=False)
            assert done.returncode == status
            assert (here / "worked").exists() == (status == 0)

    def test_what_a_stage_starts_is_not_held_against_dvc_s_lock(self, script: Path) -> None:
        here = script.parent
        (here / "go on").touch()
        (here / ".dvc" / "tmp").mkdir(parents=True)
        lock = {"write": {"data/model": {"pid": os.getppid(), "cmd": "dvc repro"}}}
        (here / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(lock))
        env = environment() | {"DVC_STAGE": "train", "COMA_GEN_STARTED": f"{os.getpid()} 1 dvc"}
        assert subprocess.run([sys.executable, str(script)], env=env, check=False).returncode == 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
