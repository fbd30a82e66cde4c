"""`coma-gen shard` gives the stage's result, also after interruptions, and names the next command."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from subprocess_utils import attempt, started, wait_until

from coma_gen.cli import shard as command
from coma_gen.cli.main import main
from coma_gen.config.load import load_params
from coma_gen.core.artifact import verify_artifact
from coma_gen.core.io import read_json
from coma_gen.shards.stage import write_shards

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "coma_gen.cli", "shard")
SOURCE = {"PYTHONPATH": str(ROOT / "src")}


@pytest.fixture
def checkout(folders: Any, tokenizer_folder: Path, tmp_path: Path) -> Path:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("src", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, folder in (("split", folders[0]), ("corpus", folders[1]), ("tokenizer", tokenizer_folder)):
        shutil.copytree(folder, tmp_path / "data" / name)
    return tmp_path


@pytest.mark.slow
def test_killed_and_started_again(checkout: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove", reason="an extra: pip install 'coma-gen[scale]'")

    def parts() -> dict[str, int]:
        return {part.name: part.stat().st_ino for part in checkout.glob(".resume/shard-*/parts/[0-9]*")}

    with started(checkout, *COMMAND, "--workers", "2", "--files-per-task", "2", env=SOURCE) as job:
        wait_until(lambda: len(parts()) > 1 or job.process.poll() is not None, told=lambda: job.output)
        job.signal_group(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL, job.output
    assert 1 < len(parts()) < 34, "killed in the middle"
    status, output = attempt(checkout, *COMMAND, "--workers", "1", env=SOURCE)
    assert status == 0 and "dvc commit -f shard" in output and len(output.splitlines()) == 2, output
    metrics = write_shards(
        load_params(checkout / "params.yaml").shard,
        *(checkout / "data" / name for name in ("split", "corpus", "tokenizer")),
        tmp_path / "expected",
        workers=1,
    )
    assert read_json(checkout / "metrics" / "shard.json") == metrics
    folders = (checkout / "data" / "shards", tmp_path / "expected")
    assert len({verify_artifact(folder, kind="shards").digest for folder in folders}) == 1
    assert list((checkout / ".resume").iterdir()) == []


@pytest.mark.parametrize("machines", [1, 2, 3, 5, 7])
def test_machines_share_the_tasks(
    machines: int, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shares: list[range] = []
    monkeypatch.chdir(checkout)
    monkeypatch.setattr("coma_gen.core.seeding.pin_cpu", lambda **_settings: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(command, "find_spec", lambda _name: True)
    monkeypatch.setattr(command, "_write", lambda _options, _parts, tasks: shares.append(tasks))
    for number in range(1, machines + 1):
        assert faults("--machine", f"{number}/{machines}", "--files-per-task", "20") == "0"
    assert [task for share in shares for task in share] == list(range(6))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert "coma-gen shard --join" in capsys.readouterr().out
    assert "must hold all 6 parts, got 0" in faults("--join")


def faults(*arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["shard", *arguments])
    return str(stopped.value.code)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--slurm", "cpu"], "--slurm and --time: must be given together"),
        (["--time", "1:00"], "--slurm and --time: must be given together"),
        (["--machine", "1/2", "--join"], "--machine and --join: must not be combined"),
        (["--sbatch", "qos=high"], "--sbatch: needs --slurm"),
    ],
)
def test_options_that_do_not_fit(
    arguments: list[str], rule: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    assert rule in faults(*arguments)
    assert not (checkout / ".resume").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--machine", "3/2"],
        ["--machine", "0/2"],
        ["--workers", "0"],
        ["--sbatch", "-x"],
        ["--files-per-task", "no"],
    ],
)
def test_values_that_cannot_be(arguments: list[str], checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    assert faults(*arguments) == "2"


def test_without_datatrove(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(command, "find_spec", lambda _name: None)
    assert "pip install 'coma-gen[scale]'" in faults()


def test_help_teaches(
    capsys: pytest.CaptureFixture[str], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    assert faults("--help") == "0"
    text = capsys.readouterr().out
    assert "examples:" in text and "dvc commit -f shard" in text
