"""How every stage script starts: with an eye on who started it, in the project's environment, with this
checkout's own code.

`dvc` runs whatever `python3` comes first on the path: the system's, or that of another environment that has
the same packages in other versions. So a stage goes on in .venv where there is one, and otherwise only where
coma-gen was installed. And an experiment in a temporary copy of the repository must import that copy's src/,
not the installed one.
"""

import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STARTED = "COMA_GEN_STARTED"
"""Keeps, over a change of the interpreter, what the script's first lines saw."""


def _started_by() -> tuple[int, bool]:
    """The process that started this one, asked before anything else, for it may end at any time; and
    whether that is `dvc`, not a stage that shares its work among processes.
    """
    own, parent, by_dvc = [*os.environ.get(STARTED, "").split(), "", "", ""][:3]
    if own != str(os.getpid()):
        by_dvc = "dvc" if "DVC_STAGE" in os.environ and not own else "other"
        own, parent = str(os.getpid()), str(os.getppid())
        os.environ[STARTED] = f"{own} {parent} {by_dvc}"
    return int(parent), by_dvc == "dvc"


PARENT, BY_DVC = _started_by()


def _enter_environment() -> None:
    """Goes on under .venv's interpreter where there is one; ends where this one is nobody's choice."""
    folder = Path(os.environ.get("DVC_ROOT", ROOT), ".venv")
    python = folder / "bin" / "python"
    again = "make .venv/.installed"
    if python.exists():
        if Path(sys.prefix).resolve() != folder.resolve():
            os.execv(python, [str(python), *sys.argv])  # noqa: S606 - a path of our own, no shell
        return
    if python.is_symlink():
        sys.exit(f"\n{python}: must lead to an interpreter, got nothing. rm -r {folder}; {again}\n")
    if BY_DVC and not _is_installed():
        sys.exit(
            f"\n{sys.executable}: must be a Python that coma-gen is installed in, got one that `dvc` found "
            f"first on the path. `{again}` makes .venv, which stages use by themselves; or activate the "
            "environment that you installed coma-gen into\n"
        )


def _is_installed() -> bool:
    try:
        return distribution("coma-gen") is not None
    except PackageNotFoundError:
        return False


def run(stage) -> None:
    """Runs `stage(params, workspace)` as the script's only work."""
    _enter_environment()
    sys.path.insert(0, str(ROOT / "src"))
    from coma_gen.workspace.stage import run_stage

    run_stage(stage, ROOT, parent=PARENT, by_dvc=BY_DVC)
