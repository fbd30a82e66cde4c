"""Sharding in parts with datatrove and Slurm: finished parts are not repeated, killed workers are noticed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from coma_gen.core.artifact import verify_artifact
from coma_gen.core.errors import UserError
from coma_gen.shards.encode import ShardInputs
from coma_gen.shards.stage import write_shards
from coma_gen.shards.tasks import Parts

pytest.importorskip("datatrove", reason="an extra: pip install 'coma-gen[scale]'")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*fork.*:DeprecationWarning"
)  # datatrove's queue, Python 3.12


@pytest.fixture
def parts(folders: Any, tokenizer_folder: Path, make_params: Any, tmp_path: Path) -> Parts:
    source = ShardInputs.of(make_params(), *folders, tokenizer_folder)
    return Parts.divide(source, tmp_path / "parts", files_per_task=16)


@pytest.fixture
def expected(parts: Parts, tmp_path: Path) -> str:
    source, folder = parts.source, tmp_path / "expected"
    write_shards(source.shard, source.split, source.corpus, source.tokenizer, folder, workers=1)
    return verify_artifact(folder, kind="shards").digest


def joined(parts: Parts, tmp_path: Path) -> str:
    parts.join(tmp_path / "shards")
    return verify_artifact(tmp_path / "shards", kind="shards").digest


def test_what_is_done_is_not_done_again(
    parts: Parts, expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from coma_gen.shards.executors import run_local

    run_local(parts, workers=1, tasks=range(1, 4))
    assert parts.unfinished() == [0, 4, 5]
    written = {part.name: part.stat().st_ino for part in (parts.folder / "parts").iterdir()}
    token_file = parts.folder / "parts" / "00002" / "train" / "tokens-00000.npy"
    token_file.write_bytes(b"torn")  # by a power cut, after datatrove had marked it
    run_local(parts, workers=1)
    now = {part.name: part.stat().st_ino for part in (parts.folder / "parts").iterdir()}
    assert [name for name, number in written.items() if now[name] != number] == ["00002"]
    assert joined(parts, tmp_path) == expected
    assert capfd.readouterr() == ("", ""), "datatrove's words belong into its log"
    assert "Processing done for rank=5" in (parts.log / "output.txt").read_text()


def test_a_fault_is_the_users_alone(parts: Parts, capfd: pytest.CaptureFixture[str]) -> None:
    from coma_gen.shards.executors import run_local

    table = parts.folder / "tables" / "00001.csv"
    table.write_text(table.read_text().replace("020.mid", "lost.mid"))
    with pytest.raises(UserError, match=r"lost\.mid"):
        run_local(parts, workers=1)
    assert parts.unfinished() == [1, 2, 3, 4, 5]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_killed_worker_is_noticed(parts: Parts) -> None:
    import multiprocess

    from coma_gen.shards.executors import POLL_SECONDS, _watch

    worker = multiprocess.get_context("spawn").Process(target=time.sleep, args=(60,))
    with (
        Path(os.devnull).open("w") as nowhere,
        pytest.raises(UserError, match="one that was killed"),
        _watch(parts, range(6), nowhere),
    ):
        worker.start()
        time.sleep(3 * POLL_SECONDS)
        worker.kill()
        time.sleep(60)
        pytest.fail("nobody noticed")
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.slow
def test_slurm_is_sent_what_is_missing(
    parts: Parts, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster's three commands are stood in for: sbatch runs the first task of an array that it is sent."""
    from coma_gen.shards.executors import run_local, submit

    commands = {
        "sbatch": f'cat "$2" > {tmp_path}/script\n'
        'SLURM_ARRAY_TASK_ID=0 SLURM_NODELIST=here bash "$2" > "$2.log" 2>&1\necho Submitted batch job 42',
        "srun": 'shift 3; exec "$@"',
        "scontrol": "echo here",
    }
    for name, text in commands.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    run_local(parts, workers=1, tasks=range(2))
    sbatch = {"account": "music", "mem-per-cpu": "3G"}
    assert submit(parts, partition="cpu", time="0:10:00", workers=50, sbatch=sbatch) == "42"
    lines = set((tmp_path / "script").read_text().splitlines())
    assert {f"#SBATCH --{option}" for option in ("array=0-3%50", "partition=cpu", "time=0:10:00")} <= lines
    assert {"#SBATCH --account=music", "#SBATCH --mem-per-cpu=3G"} <= lines
    assert parts.unfinished() == [3, 4, 5], "the first of the four that were missing"
    run_local(parts, workers=1)
    assert joined(parts, tmp_path) == expected
    assert submit(parts, partition="cpu", time="0:10:00", workers=None, sbatch={}) is None
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with pytest.raises(UserError, match="not for use inside of a job"):
        submit(parts, partition="cpu", time="0:10:00", workers=None, sbatch={})


def test_slurm_may_refuse(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coma_gen.shards.executors import submit

    (tmp_path / "sbatch").write_text(
        "#!/bin/bash\necho error: invalid partition specified: cpu >&2\nexit 1\n"
    )
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UserError, match="error: invalid partition specified: cpu"):
        submit(parts, partition="cpu", time="0:10:00", workers=None, sbatch={})
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="needs sbatch"):
        submit(parts, partition="cpu", time="0:10:00", workers=None, sbatch={})
