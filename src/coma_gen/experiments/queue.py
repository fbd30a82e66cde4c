"""DVC's queue: how many experiments wait, run, have ended or failed, and why those failed."""

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
    """What there is of DVC's queue.

    Attributes:
        counts: Queued, Running, Success, Failed -> how many.
        failed: name -> why, in a line.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def read_queue(root: Path) -> Queue:
    """The queue of a checkout; an empty one where none was ever used.

    Raises:
        UserError: DVC cannot read it.
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
                str(task["name"] or task["rev"][:7]): _log(queue.proc, task["rev"])
                for task in tasks
                if task["status"] == "Failed"
            }
    except DvcException as error:
        raise UserError(Fault("dvc queue", "must be readable", str(error))) from None
    counts = Counter(str(task["status"]) for task in tasks)
    return Queue(counts, {name: reason(text) for name, text in logs.items()})


def _log(processes: Mapping[str, object], revision: str) -> str:
    """What an experiment of the queue wrote; nothing where it did not start."""
    try:
        return Path(getattr(processes[revision], "stdout", "")).read_text(encoding="utf-8", errors="replace")
    except (KeyError, OSError):
        return ""


def reason(log: str) -> str:
    """Why an experiment failed, in a line: its stage, and what that said last.

    A stage ends with an empty line and what is wrong; an error of the program, with a traceback whose last
    line says what it is.

    Args:
        log: what `dvc queue logs` shows.
    """
    said = log.partition(ENDED)[0]
    stages = list(STAGE.finditer(said))
    if stages:
        said = said[stages[-1].end() :]
    parts = [part.strip() for part in re.split(r"\n\s*\n", said) if part.strip()]
    if not parts:
        return UNKNOWN
    lines = parts[-1].splitlines()
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    where = f"{stages[-1][1]}: " if stages else ""
    return f"{where}{line}"[:MAX_REASON]
