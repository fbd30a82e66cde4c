"""Faults during training, at any time: the run ends with the bits of an undisturbed one, or stops with a
clear message and a valid checkpoint.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from coma_gen.core.artifact import write_manifest
from coma_gen.core.errors import UserError
from coma_gen.tracking.csv_tail import read_rows
from coma_gen.training import checkpoint
from coma_gen.training import loop as training_loop
from coma_gen.training import run_lock as training_lock
from coma_gen.training.checkpoint import CHECKPOINTS, KIND
from coma_gen.training.metrics_log import SPEED_HEADER
from coma_gen.training.run_lock import HOLDER, LOCK, exclusive_run_lock
from faults.broken_disk import broken_disk, full_at
from faults.budgets import BOTH_FORMS, SHORT, Form
from faults.corruptions import DAMAGES, Damage
from faults.dying_training import written_by_python
from training import trainer

Tally = Callable[[str, str, int], None]
PROGRAM = Path(__file__).with_name("dying_training.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the tiny run when nothing goes wrong."""
    return trainer.digest(trainer.train(tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture(scope="module")
def whole_short(tmp_path_factory: pytest.TempPathFactory) -> str:
    """That of a run of few steps."""
    folder = tmp_path_factory.mktemp("short") / "run"
    return trainer.digest(trainer.train(folder, steps=trainer.SHORT))


def saved_steps(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / CHECKPOINTS).iterdir())


class TestKill9:
    """The bits are compared, and so the curve: a row that was there twice would be seen."""

    def died(self, how: str, folder: Path, number: int) -> tuple[int, list[str]]:
        source = [
            str(ROOT / "src"),
            str(ROOT / "tests" / "helpers"),
            str(ROOT / "tests"),
            os.environ.get("PYTHONPATH", ""),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(source)}
        command = [sys.executable, str(PROGRAM), how, str(folder), str(number)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return told["tried"], told["digests"]

    @pytest.mark.parametrize("form", BOTH_FORMS)
    def test_at_random_times(self, form: Form, whole: str, tmp_path: Path, tally: Tally) -> None:
        tried, digests = self.died("times", tmp_path, 6 if form == SHORT else 200)
        assert digests and set(digests) == {whole}
        tally("kill -9 at a random time of a training", "goes on; the same bits and curve", tried)

    @pytest.mark.parametrize("form", BOTH_FORMS)
    def test_at_calls(self, form: Form, whole_short: str, tmp_path: Path, tally: Tally) -> None:
        tried, digests = self.died("calls", tmp_path, 1 if form.every == 1 else 4 * form.every)
        assert len(digests) > 5 and set(digests) == {whole_short}
        tally(
            "kill -9 at each write, fsync, rename, mkdir of a training",
            "goes on; the same bits and curve",
            tried,
        )

    @pytest.mark.parametrize("left", ["", "step,tok", f"{SPEED_HEADER}3,9", f"{SPEED_HEADER}3,9,9\n4"])
    def test_half_a_line_of_speeds(self, left: str, tmp_path: Path, tally: Tally) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "speed.csv").write_text(left)
        trainer.train(tmp_path / "run")
        steps = [row.step for row in read_rows(tmp_path / "run" / "speed.csv")]
        assert steps == [3] * ("9,9\n" in left) + [3, 4, 6, 8, 9, 10]
        tally("kill -9 within a line of the table of speeds", "the line is dropped; the table can be read", 1)


class TestDisk:
    @pytest.mark.parametrize("form", BOTH_FORMS)
    def test_it_fails_at_calls(
        self, form: Form, whole_short: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        """Full, broken or read-only; for a while, or from there on."""
        monkeypatch.setattr(checkpoint, "save_file", written_by_python)
        shards, number, tried, stopped = tmp_path / "shards", 1, 0, 0
        trainer.train(tmp_path / "first", shards=shards, steps=trainer.SHORT)
        while True:
            run = tmp_path / f"run-{number}"
            code = (errno.ENOSPC, errno.EIO, errno.EROFS)[tried % 3]
            with broken_disk(full_at(number, code, stays=tried % 2 == 0)) as count:
                try:
                    trainer.train(run, shards=shards, steps=trainer.SHORT)
                except OSError as error:
                    assert error.strerror
                    stopped += 1
            if count[0] < number:
                break
            assert [path.name for path in tmp_path.rglob("*.partial")] == [], f"call {number}"
            result = trainer.train(run, shards=shards, steps=trainer.SHORT)
            assert trainer.digest(result) == whole_short
            shutil.rmtree(run)
            tried += 1
            number += 1 if form.every == 1 else 4 * form.every
        assert stopped > tried / 2
        tally(
            "disk full, broken or read-only at each write, fsync, rename, mkdir of a training",
            "stops with the disk's words, no leftover; goes on to the same bits",
            tried,
        )

    def test_what_bears_a_name_is_on_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        """So that a power cut takes nothing away: files are synced before a rename, the folder after it."""
        shards = tmp_path / "shards"
        trainer.write_shards(shards, train=trainer.TRAIN, validation=trainer.VALIDATION)
        synced: set[int] = set()
        renamed: list[Path] = []
        real_fsync, real_replace = os.fsync, os.replace

        def fsync(descriptor: int) -> None:
            synced.add(os.fstat(descriptor).st_ino)
            real_fsync(descriptor)

        def replace(source: Path, target: Path) -> None:
            if target.suffix != ".partial":
                files = source.rglob("*") if source.is_dir() else [source]
                assert all(path.stat().st_ino in synced for path in files), target
                synced.discard(target.parent.stat().st_ino)
                renamed.append(target)
            real_replace(source, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)
        trainer.train(tmp_path / "run", shards=shards, steps=trainer.SHORT)
        assert all(path.parent.stat().st_ino in synced for path in renamed if path.parent.exists())
        fault = "a power cut behind any rename of a training"
        tally(fault, "all that bears a name is on the disk", len(renamed))

    def test_a_file_may_not_grow(self, whole: str, tmp_path: Path, tally: Tally) -> None:
        """The library that writes weights is no Python: here the system stops it itself."""
        trainer.train(tmp_path / "before", shards=tmp_path / "shards")
        with biggest_file(3000), pytest.raises(OSError, match="File too large") as caught:
            trainer.train(tmp_path / "run", shards=tmp_path / "shards")
        assert caught.value.filename.endswith("weights.safetensors") and caught.value.strerror
        assert saved_steps(tmp_path / "run") == []
        assert trainer.digest(trainer.train(tmp_path / "run", shards=tmp_path / "shards")) == whole
        tally("weights that find no room", "stops with the disk's words; goes on to the same bits", 1)

    def test_nothing_is_written_where_the_data_is(self, tmp_path: Path, tally: Tally) -> None:
        """So it may be read-only."""
        shards = tmp_path / "shards"
        trainer.write_shards(shards, train=trainer.TRAIN, validation=trainer.VALIDATION)
        before = {path: path.stat().st_mtime_ns for path in [shards, *shards.rglob("*")]}
        for path in before:
            path.chmod(0o555 if path.is_dir() else 0o444)
        trainer.train(tmp_path / "run", shards=shards)
        assert {path: path.stat().st_mtime_ns for path in [shards, *shards.rglob("*")]} == before
        tally("data that is read-only", "trained from", 1)


@contextmanager
def biggest_file(size: int) -> Iterator[None]:
    """Inside the block no file of this process can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Ill(torch.nn.Module):
    """A model whose logits are changed from some forward pass of training on."""

    def __init__(self, change: Callable[[Tensor], Tensor], *, step: int) -> None:
        super().__init__()
        self.inner = trainer.make_model()
        self.change, self.left = change, 2 * (step - 1)  # two micro-batches a step

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.inner(input_ids)
        self.left -= self.training
        return logits if self.left >= 0 else self.change(logits)


def no_memory(_: Tensor) -> Tensor:
    raise MemoryError


def no_gpu_memory(_: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


FINITE = "loss and gradient must be finite"
ILLS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "NaN": (lambda logits: logits * float("nan"), FINITE),
    "infinity": (lambda logits: logits * float("inf"), FINITE),
    "an overflow": (lambda logits: logits * 3e38, FINITE),
    "an exploded loss": (lambda logits: logits * 1e6, "loss must stay below 100 nats per token"),
    "no memory": (no_memory, "must find enough memory"),
    "no memory for a tensor": (lambda logits: torch.empty(2**50), "must find enough memory"),
    "no memory of a GPU": (no_gpu_memory, "must find enough memory"),
}


class TestIll:
    @pytest.mark.parametrize("name", ILLS)
    def test_it_stops_at_the_step_and_keeps_what_was_good(
        self, name: str, tmp_path: Path, tally: Tally
    ) -> None:
        change, words = ILLS[name]
        expected = trainer.digest(trainer.train(tmp_path / "healthy", model=Ill(change, step=99)))
        model = Ill(change, step=7)
        with pytest.raises(UserError, match=f"^train step 7: {words}") as caught:
            trainer.train(tmp_path / "run", model=model)
        text = str(caught.value)
        assert (len(text.splitlines()) == 1 and "train.micro_batch" in text) or "train.learning_rate" in text
        assert all(value.isfinite().all() for value in model.state_dict().values())
        assert saved_steps(tmp_path / "run")[-1] == 6
        mended = trainer.train(tmp_path / "run", model=Ill(change, step=99))
        assert trainer.digest(mended) == expected
        kind = "too little memory" if "memory" in name else "a loss that is NaN, infinite or exploded"
        tally(f"{kind} at a step of training", "stops there by its number; what was saved stays good", 1)

    def test_weights_that_overflow_are_not_saved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
    ) -> None:
        """The loss of a step is that of the weights before it."""
        real = training_loop.learning_rate_factor
        monkeypatch.setattr(
            training_loop,
            "learning_rate_factor",
            lambda step, params: float("inf") if step == 6 else real(step, params),
        )
        with pytest.raises(UserError, match=r"^train step 6: weights must be finite.*step 4 is kept"):
            trainer.train(tmp_path / "run")
        assert saved_steps(tmp_path / "run") == [2, 4]
        tally("weights that overflow", "stops there by its number; what was saved stays good", 1)

    def test_its_device_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
        with pytest.raises(UserError, match=r"^train step 7"):
            trainer.train(tmp_path / "run", model=Ill(ILLS["NaN"][0], step=7))
        saved = saved_steps(tmp_path / "run")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(UserError, match=r"^runtime.device: must be a device .*got cuda\. Set it to auto"):
            trainer.train(tmp_path / "run", device="cuda")
        assert saved_steps(tmp_path / "run") == saved
        assert trainer.train(tmp_path / "run", model=Ill(ILLS["NaN"][0], step=99)).metrics["steps"] == 10
        tally("a device that is gone when training goes on", "refused by name; what was saved stays", 1)


def slipped_in(path: Path) -> None:
    path.with_name("surplus").write_text("x")


def sealed_nonsense(path: Path) -> None:
    """Its manifest agrees with what is no longer a file of tensors."""
    path.write_bytes(b"nonsense")
    write_manifest(path.parent, kind=KIND, made_from={"run": trainer.KEY}, settings={"step": 10})


CHECKPOINT_DAMAGES: tuple[Damage, ...] = (*DAMAGES, slipped_in, sealed_nonsense)


class TestCheckpoints:
    @pytest.mark.parametrize("form", BOTH_FORMS)
    def test_each_damage_to_the_newest(
        self, form: Form, whole: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, tally: Tally
    ) -> None:
        trainer.train(tmp_path / "run")
        names = sorted(path.name for path in (tmp_path / "run" / CHECKPOINTS / "step-00000010").iterdir())
        cases = [(name, damage) for name in names for damage in CHECKPOINT_DAMAGES]
        cases = [(n, d) for n, d in cases if d is not sealed_nonsense or n.endswith(".safetensors")]
        cases = cases[:: 1 if form.every == 1 else form.every + 1]
        for name, damage in cases:
            run = tmp_path / "again"
            shutil.copytree(tmp_path / "run", run)
            damage(run / CHECKPOINTS / "step-00000010" / name)
            caplog.clear()
            result = trainer.train(run, shards=tmp_path / "run.shards")
            assert "step-00000010 is damaged, removed; resuming from step-00000008" in caplog.text
            assert trainer.digest(result) == whole, (name, damage)
            shutil.rmtree(run)
        tally(
            "the newest checkpoint with any file flipped, cut, emptied, lost, a pipe, slipped in or forged",
            "a warning; goes on from the one before to the same bits",
            len(cases),
        )

    def test_all_of_them(self, tmp_path: Path, tally: Tally) -> None:
        trainer.train(tmp_path / "run")
        folders = sorted((tmp_path / "run" / CHECKPOINTS).iterdir())
        assert [path.name for path in folders] == [f"step-{step:08d}" for step in (6, 8, 10)]
        for folder in folders:
            DAMAGES[0](folder / "weights.safetensors")
        with pytest.raises(UserError, match="at least one checkpoint that is whole") as caught:
            trainer.train(tmp_path / "run")
        assert all(folder.name in str(caught.value) and folder.is_dir() for folder in folders)
        tally("damage to every checkpoint", "refused with each by name; all are left as they are", 3)

    def test_of_another_run(self, tmp_path: Path, tally: Tally) -> None:
        trainer.train(tmp_path / "run")
        with pytest.raises(UserError, match="must be a checkpoint of this run"):
            trainer.train(tmp_path / "run", key="b" * 64)
        tally("a checkpoint of other params, data or code", "refused", 1)


class TestTwoAtOnce:
    def test_a_second_trainer_waits_for_the_first_and_takes_over(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        tally: Tally,
    ) -> None:
        program = (
            "import sys; from pathlib import Path\n"
            "from coma_gen.training.run_lock import exclusive_run_lock\n"
            "with exclusive_run_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
        )
        command, pipe = [sys.executable, "-c", program, str(tmp_path / "run")], subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
            name = training_lock._describe_holder

            def named_and_killed(folder: Path) -> str:
                named = name(folder)
                holder.kill()
                return named

            monkeypatch.setattr(training_lock, "_describe_holder", named_and_killed)
            assert trainer.train(tmp_path / "run").metrics["steps"] == 10, "a lock ends with its process"
        assert f"Waiting for process {holder.pid} on " in capfd.readouterr().err
        assert not (tmp_path / "run" / HOLDER).exists()
        tally("two trainings of one model at once", "the second waits; goes on when the first is killed", 1)

    def test_a_folder_that_is_removed_while_one_waits_is_made_anew(
        self, tmp_path: Path, tally: Tally
    ) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        held = FileLock(folder / LOCK)
        held.acquire()

        def finish() -> None:
            shutil.rmtree(folder)
            held.release()

        threading.Timer(0.8, finish).start()
        with exclusive_run_lock(folder):
            assert (folder / LOCK).exists()
        tally("a resume folder that is removed while a training waits for it", "made anew", 1)
