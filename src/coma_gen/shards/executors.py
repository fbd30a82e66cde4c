"""The tasks of `Parts` on datatrove's executors: processes of this machine, or jobs of a SLURM cluster.

An executor calls a step once for each task, in whatever order, and marks those that are done; started again,
it does the others. The step here is `Parts.write`, a function of the task's number, so that no executor can
change a byte of the result. datatrove is an extra of this project (github.com/huggingface/datatrove): import
this module only where it was asked for.
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
    """Does the tasks that are not done yet, in processes of this machine.

    Args:
        parts: what to write.
        workers: processes.
        tasks: only these; None for all. Other machines may do others at the same time.

    Raises:
        UserError: a task's input is at fault, or a process was killed. What was done stays done.
    """
    tasks = range(len(parts)) if tasks is None else tasks
    _forget_lost(parts, tasks)
    with _output_to(parts.log) as terminal, _watch(parts, tasks, terminal):
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
    """Hands the tasks that are not done yet to SLURM, as an array of jobs.

    Args:
        parts: what to write, in a folder that the cluster's machines share.
        partition: of the cluster.
        time: that a task may take at most, as SLURM writes it.
        workers: jobs at the same time; None for no limit.
        sbatch: further options of sbatch, without their dashes.

    Returns:
        The number of the last job; None when there was nothing to do.

    Raises:
        UserError: this is no machine that jobs can be sent from, or SLURM refuses them.
    """
    if shutil.which("sbatch") is None or "SLURM_ARRAY_TASK_ID" in os.environ:
        raise UserError(
            Fault("--slurm", "needs sbatch, and is not for use inside of a job", "", "log in to the cluster")
        )
    _forget_lost(parts, range(len(parts)))
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
        with _output_to(parts.log):
            jobs.run()
    except subprocess.CalledProcessError as error:
        said = (parts.log / OUTPUT).read_text(encoding="utf-8").strip().splitlines()
        raise UserError(Fault("sbatch", "must accept the job", said[-1] if said else str(error))) from None
    return None if jobs.job_id == -1 else str(jobs.job_id)


class _Jobs(SlurmPipelineExecutor):  # type: ignore[misc]
    def launch_merge_stats(self) -> None:
        """Sends no further job for figures that nobody reads."""


def _write(parts: Parts, _documents: object, rank: int, _world_size: int) -> None:
    _end_with_parent()
    parts.write(rank)


@lru_cache(maxsize=1)
def _end_with_parent() -> None:
    """Ends this worker when the process that started it was killed, so that nobody writes on unseen."""
    parent = multiprocess.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def _forget_lost(parts: Parts, tasks: range) -> None:
    """Takes back the marks of tasks whose part is not whole, such as after a power cut."""
    for number in parts.unfinished(tasks):
        (parts.log / MARKS / f"{number:05d}").unlink(missing_ok=True)


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[TextIO]:
    """Whatever this process and those it starts say goes to a file inside the block: datatrove is talkative.

    Yields:
        The standard error output that is for people.
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
    """A worker was ended by a signal that nobody here sent."""


@contextlib.contextmanager
def _watch(parts: Parts, tasks: range, terminal: TextIO) -> Iterator[None]:
    """Shows how many tasks are done, and ends the wait for a worker that was killed, which would be forever.

    Raises:
        UserError: a worker was killed.
    """
    over, caller = threading.Event(), threading.get_ident()
    names = {f"{number:05d}" for number in tasks}

    def look() -> None:
        workers = set()
        with tqdm(total=len(tasks), desc="encoding", unit="part", file=terminal, disable=None) as progress:
            while not over.wait(POLL_SECONDS):
                progress.update(len(names & _marks(parts)) - progress.n)
                workers |= set(multiprocess.active_children())
                if any(
                    (worker.exitcode or 0) < 0 and worker.exitcode != -signal.SIGTERM for worker in workers
                ):
                    signal.pthread_kill(caller, signal.SIGUSR1)
                    return
            progress.update(len(names & _marks(parts)) - progress.n)

    watcher = threading.Thread(target=look, name="watch", daemon=True)
    before = signal.signal(signal.SIGUSR1, _raise_killed)
    watcher.start()
    try:
        yield
    except _WorkerKilled:
        remedy = "give them a few hundred MB each and run it again: it goes on where it was"
        raise UserError(
            Fault("--workers", "must have the memory they need", "one that was killed", remedy)
        ) from None
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def _raise_killed(_number: int, _frame: object) -> None:
    raise _WorkerKilled


def _marks(parts: Parts) -> set[str]:
    folder = parts.log / MARKS
    return {mark.name for mark in folder.iterdir()} if folder.exists() else set()
