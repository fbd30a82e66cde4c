"""How every stage script starts: in the project's environment, with this checkout's own code.

`dvc` may be called by its path, with no environment active, so that `python3` is the system's; then the
script goes on in .venv. And an experiment in a temporary copy of the repository must import that copy's src/,
not the installed one.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _enter_environment() -> None:
    """Starts this script again under .venv's interpreter, when this one lacks what the project needs."""
    python = Path(os.environ.get("DVC_ROOT", ROOT), ".venv", "bin", "python")
    is_complete = all(find_spec(name) for name in ("miditok", "mlflow", "torch"))
    if not is_complete and python.exists() and Path(sys.prefix) != python.parents[1]:
        os.execv(python, [str(python), *sys.argv])  # noqa: S606 - a path of our own, no shell


def run(stage) -> None:
    """Runs `stage(params, workspace)` as the script's only work."""
    _enter_environment()
    sys.path.insert(0, str(ROOT / "src"))
    from coma_gen.workspace.stage import run_stage

    run_stage(stage, ROOT)
