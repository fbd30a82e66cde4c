"""A small checkout of this project in a temporary folder, with a synthetic corpus and a tiny model, and ways
to run it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from coma_gen.params.reading import read_yaml

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "runtime": {"threads": 1},
    "download": {"corpus": "synthetic", "synthetic_performances": 6, "synthetic_seconds": 12.0},
    "tokenizer": {"fidelity_performances": 2},
    "model": {
        "dim": 16,
        "num_layers": 1,
        "num_heads": 2,
        "head_dim": 8,
        "window_sizes": [8, 16],
        "kernel_size": 5,
    },
    "train": {
        "seq_len": 32,
        "micro_batch": 4,
        "steps": 12,
        "warmup_steps": 2,
        "log_every": 4,
        "validate_every": 6,
        "checkpoint_every": 4,
    },
    "evaluate": {"bootstrap_resamples": 100},
    "sample": {"unprompted": 1, "prompted": 1, "prompt_seconds": 2.0, "seconds": 2.0, "max_tokens": 60},
    "report": {"audio": False},
}


def run(checkout: Path, *command: str, env: dict[str, str] | None = None, check: bool = True) -> str:
    """Runs a command in the checkout; returns stdout and stderr together.

    Raises:
        AssertionError: with the output, when `check` and it fails.
    """
    done = subprocess.run(
        command,
        cwd=checkout,
        env=environment() | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert not check or done.returncode == 0, (
        f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    )
    return done.stdout


def dvc(checkout: Path, *arguments: str, env: dict[str, str] | None = None, check: bool = True) -> str:
    """Runs `dvc` of this interpreter's environment."""
    return run(checkout, sys.executable, "-m", "dvc", *arguments, env=env, check=check)


def environment() -> dict[str, str]:
    """This process's environment, without what would tell a stage of another run, and with this interpreter
    first.
    """
    kept = {
        name: text for name, text in os.environ.items() if not name.startswith(("DVC_", "GIT_", "MLFLOW_"))
    }
    binaries = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join([binaries, kept["PATH"]])
    kept["VIRTUAL_ENV"] = str(Path(sys.executable).parents[1])
    kept["DVC_NO_ANALYTICS"] = "1"
    return kept


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


def set_params(checkout: Path, *changes: dict[str, dict[str, object]]) -> None:
    """Writes params.yaml with changes, section by section."""
    params = read_yaml(checkout / "params.yaml")
    for change in changes:
        for section, settings in change.items():
            params[section].update(settings)
    (checkout / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def commit(checkout: Path, message: str) -> None:
    """Commits everything, as somebody."""
    run(checkout, "git", "add", "-A")
    run(
        checkout,
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        message,
    )
