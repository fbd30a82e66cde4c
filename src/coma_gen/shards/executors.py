"""Runs the tasks of `Parts` with datatrove's executors: local processes or jobs of a SLURM cluster.

An executor calls a pipeline step once per task, in any order, and marks finished tasks; when restarted, it
runs the others. The step is `Parts.write`, a function of the task number, so the executor does not affect the
result. datatrove (github.com/huggingface/datatrove) is an optional dependency: import this module lazily.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TextIO

import multiprocess
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.utils.logging import setup_default_logger
from tqdm import tqdm

from coma_gen.core.errors import Fault, UserError
from coma_gen.shards.tasks import Parts

MARKS = "completions"
OUTPUT = "output.txt"
POLL_SECONDS = 0.5
JOB_NAME = "coma-gen-shard"


def run_local(parts: Parts, *, workers: int, tasks: range | None = None) -> None:
    """Runs the unfinished tasks in processes of this machine.

    Args:
        parts: Parts to write.
        workers: Number of processes.
        tasks: Range of tasks to run; None for all. Other machines may run other tasks concurrently.

    Raises:
        UserError: If the input of a task is invalid or a process was killed. Finished parts are kept.
    """
    tasks = range(len(parts)) if tasks is None else tasks
    _remove_stale_marks(parts, tasks)
    with _redirect_output(parts.log) as terminal, _watch(parts, tasks, terminal):
        LocalPipelineExecutor(
            pipeline=[partial(_write, parts)],
            tasks=len(parts),
            workers=min(workers, len(tasks)),
            logging_dir=str(parts.log),
            start_method="spawn",
            local_tasks=len(tasks),
            local_rank_offset=tasks.start,
        ).run()


def submit(
    parts: Parts, *, partition: str, time: str, workers: int | None, sbatch: Mapping[str, str]
) -> str | None:
    """Submits the unfinished tasks to SLURM as a job array.

    Args:
        parts: Parts to write, in a folder shared by the cluster's machines.
        partition: Partition of the cluster.
        time: Time limit of a task in SLURM's format.
        workers: Maximum number of concurrent jobs; None for no limit.
        sbatch: Further options of sbatch, without their dashes.

    Returns:
        Id of the last job; None if all tasks were finished.

    Raises:
        UserError: If jobs cannot be submitted from this machine, or SLURM rejects them.
    """
    if shutil.which("sbatch") is None or "SLURM_ARRAY_TASK_ID" in os.environ:
        raise UserError(
            Fault("--slurm", "needs sbatch, and is not for use inside of a job", "", "log in to the cluster")
        )
    _remove_stale_marks(parts, range(len(parts)))
    jobs = _Jobs(
        pipeline=[partial(_write, parts)],
        tasks=len(parts),
        time=time,
        partition=partition,
        workers=workers or -1,
        job_name=JOB_NAME,
        qos="",
        env_command=f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        sbatch_args=dict(sbatch),
        logging_dir=str(parts.log),
    )
    try:
        with _redirect_output(parts.log):
            jobs.run()
    except subprocess.CalledProcessError as error:
        lines = (parts.log / OUTPUT).read_text(encoding="utf-8").strip().splitlines()
        raise UserError(Fault("sbatch", "must accept the job", lines[-1] if lines else str(error))) from None
    return None if jobs.job_id == -1 else str(jobs.job_id)


class _Jobs(SlurmPipelineExecutor):  # type: ignore[misc]
    def launch_merge_stats(self) -> None:
        """Skips the job that merges datatrove's statistics, which are not used."""


def _write(parts: Parts, _documents: object, rank: int, _world_size: int) -> None:
    _exit_with_parent()
    parts.write(rank)


@lru_cache(maxsize=1)
def _exit_with_parent() -> None:
    """Exits this worker when its parent process is killed, so that no orphan continues to write."""
    parent = multiprocess.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def _remove_stale_marks(parts: Parts, tasks: range) -> None:
    """Removes completion marks of tasks whose part is damaged, such as after a power failure."""
    for number in parts.unfinished(tasks):
        (parts.log / MARKS / f"{number:05d}").unlink(missing_ok=True)


@contextlib.contextmanager
def _redirect_output(log: Path) -> Iterator[TextIO]:
    """Redirects stderr of this process and its children to a log file, since datatrove logs a lot.

    Yields:
        The original stderr.
    """
    log.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    with (
        os.fdopen(os.dup(2), "w", encoding="utf-8") as terminal,
        (log / OUTPUT).open("a", encoding="utf-8") as file,
        contextlib.redirect_stderr(file),
    ):
        os.dup2(file.fileno(), 2)
        setup_default_logger()
        try:
            yield terminal
        finally:
            os.dup2(terminal.fileno(), 2)


class _WorkerKilled(BaseException):
    """A worker was killed by a signal from outside."""


@contextlib.contextmanager
def _watch(parts: Parts, tasks: range, terminal: TextIO) -> Iterator[None]:
    """Shows progress, and interrupts the executor if a worker is killed, for which it would wait forever.

    Raises:
        UserError: If a worker was killed.
    """
    over, caller = threading.Event(), threading.get_ident()
    names = {f"{number:05d}" for number in tasks}

    def poll() -> None:
        workers = set()
        with tqdm(total=len(tasks), desc="encoding", unit="part", file=terminal, disable=None) as progress:
            while not over.wait(POLL_SECONDS):
                progress.update(len(names & _read_marks(parts)) - progress.n)
                workers |= set(multiprocess.active_children())
                if any(
                    (worker.exitcode or 0) < 0 and worker.exitcode != -signal.SIGTERM for worker in workers
                ):
                    signal.pthread_kill(caller, signal.SIGUSR1)
                    return
            progress.update(len(names & _read_marks(parts)) - progress.n)

    watcher = threading.Thread(target=poll, name="watch", daemon=True)
    before = signal.signal(signal.SIGUSR1, _raise_killed)
    watcher.start()
    try:
        yield
    except _WorkerKilled:
        remedy = "give them a few hundred MB each and run it again: finished parts are kept"
        raise UserError(
            Fault("--workers", "must have the memory they need", "one that was killed", remedy)
        ) from None
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def _raise_killed(_number: int, _frame: object) -> None:
    raise _WorkerKilled


def _read_marks(parts: Parts) -> set[str]:
    folder = parts.log / MARKS
    return {mark.name for mark in folder.iterdir()} if folder.exists() else set()
