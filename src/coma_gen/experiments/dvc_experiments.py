"""The experiments that there are: those that have run, as git has them, and those that wait in DVC's queue.

DVC keeps an experiment as a commit at refs/exps/<commit that it began at>/<name>. Its params, metrics and
lock are files of that commit; what is in DVC's cache is read by way of the lock.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coma_gen.config.yaml_reader import parse_yaml
from coma_gen.core.errors import Fault, UserError
from coma_gen.experiments.ablation import Ablation, Run

REFERENCE = re.compile(r"refs/exps/([0-9a-f]{2}/[0-9a-f]{38})/(\S+) ([0-9a-f]{40}) (\d+)")
TASK = re.compile(r"^[0-9a-f]{7,}\s+(\S+)\s.*\s(\w+)$", re.MULTILINE)
"""A row of `dvc queue status`: task, name, when, status."""
DVC = (sys.executable, "-m", "dvc")
STAGES = ("download", "split", "fit_tokenizer", "shard", "train", "evaluate")
"""What an ablation needs."""
TARGET = "headline"
"""Up to where an ablation's runs go: what `dvc exp show` lists of them is theirs."""
UNRELATED = ("baseline", "sample", "report")
"""Sections that change nothing that an ablation needs."""


@dataclass(frozen=True)
class Experiment:
    """One that has run.

    Attributes:
        commit: that holds its params and results.
        began_at: the commit of the code.
        root: the checkout.
    """

    commit: str
    began_at: str
    root: Path

    def text(self, path: str) -> str:
        """A file of it, as git has it.

        Raises:
            UserError: it has none, as where it did not run so far.
        """
        try:
            return _git(self.root, "show", f"{self.commit}:{path}")
        except UserError:
            remedy = "run it to the end: `dvc exp apply` and `dvc repro`"
            raise UserError(
                Fault(f"{self.commit[:7]}:{path}", "must be in the experiment", "", remedy)
            ) from None

    def metrics(self, stage: str) -> dict[str, Any]:
        """metrics/<stage>.json."""
        found: dict[str, Any] = json.loads(self.text(f"metrics/{stage}.json"))
        return found

    def performances(self) -> pd.DataFrame:
        """The evaluate stage's row for each performance, from git or DVC's cache.

        Raises:
            UserError: the cache does not have it.
        """
        content = io.BytesIO(self._read_all("data/evaluation/performances.parquet")[""])
        return pd.read_parquet(content, use_threads=False, pre_buffer=False)

    def copy_folder(self, path: str, destination: Path) -> None:
        """Copies a folder of it, from git or DVC's cache.

        Raises:
            UserError: the cache does not have it.
        """
        for name, content in self._read_all(path).items():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            (destination / name).write_bytes(content)

    def _read_all(self, path: str) -> dict[str, bytes]:
        """Name below a path -> content of each file; that of a file itself is empty."""
        from dvc.api import DVCFileSystem
        from dvc_data.index import DataIndexDirError

        try:
            files = DVCFileSystem(str(self.root), rev=self.commit)
            found = {
                "" if name == path else str(Path(name).relative_to(path)): files.cat_file(name)
                for name in files.find(path)
            }
        except (FileNotFoundError, DataIndexDirError):
            found = {}
        if not found:
            remedy = "fetch it with `dvc exp pull`, or remove the experiment and queue it again"
            raise UserError(Fault(f"{self.commit[:7]}:{path}", "must be in DVC's cache", "", remedy))
        return found

    def is_of(self, run: Run) -> bool:
        """Whether it is a run's: with its settings, as far as they matter to its figures, and run so far.

        An experiment that ended at an earlier stage holds the figures of the commit that it began at.
        """
        params = parse_yaml(self.text("params.yaml"), name="params.yaml")
        if _related(params) != _related(run.params):
            return False
        return has_run(parse_yaml(self.text("dvc.lock"), name="dvc.lock"), params, STAGES)


def has_run(lock: Any, params: Any, names: Sequence[str]) -> bool:
    """Whether a lock says of every one of some stages that it ran under these params, on what the stages
    before it made.
    """
    locked = lock.get("stages") if isinstance(lock, dict) else None
    if not isinstance(locked, dict) or not set(names) <= set(locked):
        return False
    stages = [locked[name] for name in names]
    made = {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}
    used = [each for stage in stages for each in stage["deps"] if each["path"] in made]
    read = [item for stage in stages for item in stage.get("params", {}).get("params.yaml", {}).items()]
    return all(made[each["path"]] == each["md5"] for each in used) and all(
        _setting(params, name) == value for name, value in read
    )


def find_experiments(root: Path, ablation: Ablation) -> dict[str, Experiment]:
    """Name -> the experiment of that name with the settings that the ablation asks for now.

    Of several, one that began at the checkout's own commit comes first, then the newest.
    """
    runs = {run.name: run for run in ablation.runs}
    chosen: dict[str, Experiment] = {}
    for name, experiment in all_experiments(root):
        if name in runs and name not in chosen and experiment.is_of(runs[name]):
            chosen[name] = experiment
    return chosen


def experiment_of(root: Path, name: str) -> Experiment:
    """The experiment of a name; of several, one that began at the checkout's own commit, then the newest.

    Raises:
        UserError: there is none.
    """
    found = all_experiments(root)
    for other, experiment in found:
        if other == name:
            return experiment
    known = ", ".join(dict.fromkeys(other for other, _ in found)) or "none"
    raise UserError(Fault(f"experiment '{name}'", "must be one of DVC's", "", f"there are: {known}"))


def head(root: Path) -> str:
    """The commit that a checkout is at."""
    return _git(root, "rev-parse", "HEAD").strip()


def all_experiments(root: Path) -> list[tuple[str, Experiment]]:
    """All that git holds, with their names: those that began at the checkout's own commit come first."""
    listing, own, found = "%(refname) %(objectname) %(committerdate:unix)", head(root), []
    for line in _git(root, "for-each-ref", f"--format={listing}", "refs/exps").splitlines():
        if match := REFERENCE.fullmatch(line):
            began_at = match[1].replace("/", "")
            found.append((began_at == own, int(match[4]), match[2], Experiment(match[3], began_at, root)))
    return [item[2:] for item in sorted(found, key=lambda item: item[:3], reverse=True)]


def queue_statuses(root: Path) -> dict[str, str]:
    """Name -> what DVC's queue says of it: Queued, Running, Success, Failed."""
    return dict(TASK.findall(_dvc(root, "queue", "status")))


def enqueue(root: Path, run: Run) -> None:
    """Puts one run into DVC's queue; an experiment of that name at this commit, of other settings, gives way.

    Raises:
        UserError: DVC refuses.
    """
    _dvc(root, "exp", "run", "--queue", "--force", "--name", run.name, *run.flags, TARGET)


def _setting(params: Any, name: str) -> Any:
    """What the lock names as a section, or as section.key; None where params have none."""
    part: Any = params
    for each in name.split("."):
        part = part.get(each) if isinstance(part, Mapping) else None
    return part


def _related(params: Mapping[str, Any]) -> dict[str, Any]:
    return {section: keys for section, keys in params.items() if section not in UNRELATED}


def _git(root: Path, *arguments: str) -> str:
    return _output(root, ("git", *arguments))


def _dvc(root: Path, *arguments: str) -> str:
    return _output(root, (*DVC, *arguments))


def _output(root: Path, command: tuple[str, ...]) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(command[:1] if command[0] == "git" else command[2:3])
        got = (done.stderr or done.stdout).strip()
        raise UserError(Fault(f"{shown} {command[-1]}", "must succeed", got))
    return done.stdout
