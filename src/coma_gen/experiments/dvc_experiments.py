"""Reads DVC experiments from git, and adds experiments to DVC's queue.

DVC stores an experiment as a commit at refs/exps/<base commit>/<name>. Its params, metrics and dvc.lock are
files of that commit; other outputs are in DVC's cache, addressed by dvc.lock.
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
"""Stages that an ablation needs."""
TARGET = "headline"
"""Last stage of an ablation run, which writes the figures that `dvc exp show` lists."""
UNRELATED = ("baseline", "sample", "report")
"""Sections of params.yaml that do not affect the results of an ablation."""


@dataclass(frozen=True)
class Experiment:
    """A finished experiment.

    Attributes:
        commit: Commit that contains its params and results.
        began_at: Base commit, that is, the commit of the code.
        root: The checkout.
    """

    commit: str
    began_at: str
    root: Path

    def text(self, path: str) -> str:
        """Reads a file of the experiment from git.

        Raises:
            UserError: If there is no such file, for example because the experiment stopped earlier.
        """
        try:
            return _run_git(self.root, "show", f"{self.commit}:{path}")
        except UserError:
            remedy = "run it to the end: `dvc exp apply` and `dvc repro`"
            raise UserError(
                Fault(f"{self.commit[:7]}:{path}", "must be in the experiment", "", remedy)
            ) from None

    def metrics(self, stage: str) -> dict[str, Any]:
        """Reads metrics/<stage>.json."""
        found: dict[str, Any] = json.loads(self.text(f"metrics/{stage}.json"))
        return found

    def performances(self) -> pd.DataFrame:
        """Reads the evaluation results by performance, from git or DVC's cache.

        Raises:
            UserError: If they are not in the cache.
        """
        content = io.BytesIO(self._read_all("data/evaluation/performances.parquet")[""])
        return pd.read_parquet(content, use_threads=False, pre_buffer=False)

    def copy_folder(self, path: str, destination: Path) -> None:
        """Copies a folder of the experiment, from git or DVC's cache.

        Raises:
            UserError: If it is not in the cache.
        """
        for name, content in self._read_all(path).items():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            (destination / name).write_bytes(content)

    def _read_all(self, path: str) -> dict[str, bytes]:
        """Maps relative path -> content of each file below a path ("" if the path itself is a file)."""
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
        """Whether the experiment has the relevant settings of a run, and ran all stages that are needed.

        An experiment that stopped at an earlier stage contains the metrics of its base commit.
        """
        params = parse_yaml(self.text("params.yaml"), name="params.yaml")
        if _select_related(params) != _select_related(run.params):
            return False
        return has_run(parse_yaml(self.text("dvc.lock"), name="dvc.lock"), params, STAGES)


def has_run(lock: Any, params: Any, names: Sequence[str]) -> bool:
    """Whether a lock shows that the named stages ran with these params and each other's current outputs."""
    locked = lock.get("stages") if isinstance(lock, dict) else None
    if not isinstance(locked, dict) or not set(names) <= set(locked):
        return False
    stages = [locked[name] for name in names]
    made = {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}
    used = [each for stage in stages for each in stage["deps"] if each["path"] in made]
    read = [item for stage in stages for item in stage.get("params", {}).get("params.yaml", {}).items()]
    return all(made[each["path"]] == each["md5"] for each in used) and all(
        _find_setting(params, name) == value for name, value in read
    )


def find_experiments(root: Path, ablation: Ablation) -> dict[str, Experiment]:
    """Finds the experiments with the names and current settings of an ablation's runs.

    Among several, one based on the checkout's commit is preferred, then the newest.
    """
    runs = {run.name: run for run in ablation.runs}
    chosen: dict[str, Experiment] = {}
    for name, experiment in all_experiments(root):
        if name in runs and name not in chosen and experiment.is_of(runs[name]):
            chosen[name] = experiment
    return chosen


def find_experiment(root: Path, name: str) -> Experiment:
    """Finds an experiment by name; among several, one based on the checkout's commit, or else the newest.

    Raises:
        UserError: If there is none.
    """
    found = all_experiments(root)
    for other, experiment in found:
        if other == name:
            return experiment
    known = ", ".join(dict.fromkeys(other for other, _ in found)) or "none"
    raise UserError(
        Fault(f"experiment '{name}'", "must be the name of a DVC experiment", "", f"there are: {known}")
    )


def head(root: Path) -> str:
    """The current commit of a checkout."""
    return _run_git(root, "rev-parse", "HEAD").strip()


def all_experiments(root: Path) -> list[tuple[str, Experiment]]:
    """Lists (name, experiment) of all experiments; those based on the checkout's commit come first."""
    listing, own, found = "%(refname) %(objectname) %(committerdate:unix)", head(root), []
    for line in _run_git(root, "for-each-ref", f"--format={listing}", "refs/exps").splitlines():
        if match := REFERENCE.fullmatch(line):
            began_at = match[1].replace("/", "")
            found.append((began_at == own, int(match[4]), match[2], Experiment(match[3], began_at, root)))
    return [item[2:] for item in sorted(found, key=lambda item: item[:3], reverse=True)]


def queue_statuses(root: Path) -> dict[str, str]:
    """Maps name -> status in DVC's queue: Queued, Running, Success or Failed."""
    return dict(TASK.findall(_run_dvc(root, "queue", "status")))


def enqueue(root: Path, run: Run) -> None:
    """Adds a run to DVC's queue, replacing an experiment of that name at this commit.

    Raises:
        UserError: If DVC fails.
    """
    _run_dvc(root, "exp", "run", "--queue", "--force", "--name", run.name, *run.flags, TARGET)


def _find_setting(params: Any, name: str) -> Any:
    """Looks up a section, or section.key, in the params; None if it does not exist."""
    part: Any = params
    for each in name.split("."):
        part = part.get(each) if isinstance(part, Mapping) else None
    return part


def _select_related(params: Mapping[str, Any]) -> dict[str, Any]:
    return {section: keys for section, keys in params.items() if section not in UNRELATED}


def _run_git(root: Path, *arguments: str) -> str:
    return _run_command(root, ("git", *arguments))


def _run_dvc(root: Path, *arguments: str) -> str:
    return _run_command(root, (*DVC, *arguments))


def _run_command(root: Path, command: tuple[str, ...]) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(command[:1] if command[0] == "git" else command[2:3])
        got = (done.stderr or done.stdout).strip()
        raise UserError(Fault(f"{shown} {command[-1]}", "must succeed", got))
    return done.stdout
