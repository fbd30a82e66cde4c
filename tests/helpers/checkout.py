"""Small checkouts of this project in temporary folders, with a synthetic corpus and a tiny model, and
commands of `dvc` and git in them.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from subprocess_utils import attempt, run

from coma_gen.config.yaml_reader import read_yaml

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "runtime": {"threads": 1, "processes": 1},
    "download": {"corpus": "synthetic", "synthetic_performances": 6, "synthetic_seconds": 12.0},
    "tokenizer": {"fidelity_performances": 2},
    "model": {
        "dim": 16,
        "num_layers": 1,
        "num_heads": 2,
        "head_dim": 8,
        "window_sizes": [8, 16],
        "num_streams": 2,
        "kernel_size": 5,
    },
    "train": {
        "seq_len": 32,
        "micro_batch": 4,
        "steps": 12,
        "learning_rate": 0.003,
        "warmup_steps": 2,
        "log_every": 4,
        "validate_every": 6,
        "checkpoint_every": 4,
    },
    "evaluate": {"bootstrap_resamples": 100},
    "sample": {"unprompted": 1, "prompted": 1, "prompt_seconds": 2.0, "seconds": 2.0, "max_tokens": 60},
    "report": {"audio": False},
}
Sections = dict[str, dict[str, Any]]


def dvc(checkout: Path, *arguments: str, env: dict[str, str] | None = None, check: bool = True) -> str:
    """Runs `dvc` of this interpreter's environment."""
    return run(checkout, *DVC, *arguments, env=env, check=check)


DVC = (sys.executable, "-m", "dvc")


def coma_gen(checkout: Path, *arguments: str) -> tuple[int, str]:
    """Runs the command line of the checkout's own code."""
    source = {"PYTHONPATH": str(checkout / "src")}
    return attempt(checkout, sys.executable, "-m", "coma_gen.cli", *arguments, env=source)


def make_checkout(folder: Path, **sections: dict[str, object]) -> Path:
    """A git checkout of the working tree's files, params.yaml set to `TINY` and then to `sections`, all
    committed.
    """
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        source = ROOT / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    for made in (folder / "metrics").glob("*"):
        made.unlink()
    (folder / "dvc.lock").unlink(missing_ok=True)
    set_params(folder, TINY, sections)
    run(folder, "git", "init", "-q", "-b", "main")
    commit(folder, "begin")
    return folder


def clone(checkout: Path, folder: Path) -> Path:
    """A git clone: no data, no cache, no runs."""
    run(checkout, "git", "clone", "-q", str(checkout), str(folder))
    return folder


def copy_of(checkout: Path, folder: Path) -> Path:
    """A copy with data and cache, but without the record of its runs, which belongs to its place."""
    record = shutil.ignore_patterns("mlflow.db*", "mlartifacts", ".mlflow", ".resume")
    shutil.copytree(checkout, folder, symlinks=True, ignore=record)
    return folder


def set_params(checkout: Path, *changes: Sections) -> None:
    """Writes params.yaml with changes, section by section."""
    params = read_yaml(checkout / "params.yaml")
    for change in changes:
        for section, settings in change.items():
            params[section].update(settings)
    (checkout / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """A file that reads otherwise inside the block."""
    before = path.read_bytes()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    try:
        yield
    finally:
        path.write_bytes(before)


def commit(checkout: Path, message: str) -> None:
    """Commits everything, as somebody that nobody else of the checkout knows."""
    somebody = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    run(checkout, "git", "add", "-A")
    run(checkout, "git", *somebody, "commit", "-q", "--allow-empty", "-m", message)


def git_status(checkout: Path) -> list[str]:
    """`git status --porcelain`, a line an item."""
    return run(checkout, "git", "status", "--porcelain", "--untracked-files=all").splitlines()


def stages_run(output: str) -> list[str]:
    """The stages that ran for real, by what dvc wrote."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


def stages_restored(output: str) -> list[str]:
    """The stages that dvc restored from its run-cache."""
    return [line.split("'")[1] for line in output.splitlines() if "is cached - skipping run" in line]


def locked_outs(checkout: Path, *, revision: str | None = None) -> dict[str, str]:
    """Path -> digest of every out in dvc.lock but track's, which is of one place."""
    if revision is None:
        text = (checkout / "dvc.lock").read_text()
    else:
        text = run(checkout, "git", "show", f"{revision}:dvc.lock")
    stages = yaml.safe_load(text)["stages"]
    return {
        out["path"]: out["md5"] for name in stages if name != "track" for out in stages[name].get("outs", [])
    }


def show_experiments(checkout: Path) -> dict[str, Any]:
    """Name -> what `dvc exp show` says of each experiment of HEAD."""
    shown = json.loads(dvc(checkout, "exp", "show", "--json"))
    head = next(item for item in shown if item["rev"] != "workspace")
    revisions = [revision for item in head["experiments"] or [] for revision in item["revs"]]
    return {revision["name"]: revision["data"] for revision in revisions if revision["data"]}


@dataclass(frozen=True)
class Built:
    """A checkout in which everything has run once and is committed.

    Attributes:
        folder: the checkout.
        output: what `dvc repro` wrote.
        changed: `git status` before the results were committed.
    """

    folder: Path
    output: str
    changed: list[str]

    def save(self, path: Path) -> None:
        """Notes it down for another process."""
        path.write_text(json.dumps(asdict(self) | {"folder": str(self.folder)}))

    @classmethod
    def load(cls, path: Path) -> Built:
        """What `save` noted."""
        noted = json.loads(path.read_text())
        return cls(**noted | {"folder": Path(noted["folder"])})


def build(folder: Path) -> Built:
    """Builds a checkout whose corpus has so many performances that they are read in several processes."""
    many = {"synthetic_performances": 70, "synthetic_seconds": 5.0}
    make_checkout(folder, download=many)
    output = dvc(folder, "repro")
    changed = git_status(folder)
    commit(folder, "built")
    return Built(folder, output, changed)
