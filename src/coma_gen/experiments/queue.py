"""The state of DVC's queue: the number of experiments by status, and why experiments failed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coma_gen.core.errors import Fault, UserError

UNKNOWN = "it left no output: see `dvc queue logs`"
STAGE = re.compile(r"^Running stage '(.+)':$", re.MULTILINE)
ENDED = "ERROR: failed to reproduce"
MAX_REASON = 240


@dataclass(frozen=True)
class Queue:
    """The state of DVC's queue.

    Attributes:
        counts: Status (Queued, Running, Success, Failed) -> number of experiments.
        failed: Name -> one-line reason.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def read_queue(root: Path) -> Queue:
    """Reads the queue of a checkout; empty if it was never used.

    Raises:
        UserError: If DVC cannot read it.
    """
    if not (root / ".dvc" / "tmp" / "exps" / "celery").exists():
        return Queue()
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            queue = repo.experiments.celery_queue
            tasks = queue.status()
            logs = {
                str(task["name"] or task["rev"][:7]): _read_log(queue.proc, task["rev"])
                for task in tasks
                if task["status"] == "Failed"
            }
    except DvcException as error:
        raise UserError(Fault("dvc queue", "must be readable", str(error))) from None
    counts = Counter(str(task["status"]) for task in tasks)
    return Queue(counts, {name: reason(text) for name, text in logs.items()})


def _read_log(processes: Mapping[str, object], revision: str) -> str:
    """Reads the log of a queued experiment; empty if it did not start."""
    try:
        return Path(getattr(processes[revision], "stdout", "")).read_text(encoding="utf-8", errors="replace")
    except (KeyError, OSError):
        return ""


def reason(log: str) -> str:
    """Extracts why an experiment failed: the stage and its error message, in one line.

    A stage prints an empty line before its error message; an unexpected exception ends with a traceback,
    whose last line is the message.

    Args:
        log: Output of `dvc queue logs`.
    """
    output = log.partition(ENDED)[0]
    stages = list(STAGE.finditer(output))
    if stages:
        output = output[stages[-1].end() :]
    parts = [part.strip() for part in re.split(r"\n\s*\n", output) if part.strip()]
    if not parts:
        return UNKNOWN
    lines = parts[-1].splitlines()
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    where = f"{stages[-1][1]}: " if stages else ""
    return f"{where}{line}"[:MAX_REASON]
