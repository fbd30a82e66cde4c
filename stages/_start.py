"""Start-up of every stage script: records the parent process, enters the environment, imports this checkout.

`dvc` runs the first `python3` on the path, which may be the system's or that of another environment with
other package versions. A stage therefore re-executes itself in .venv if there is one, and otherwise requires
that coma-gen is installed. An experiment in a temporary copy of the repository must import that copy's src/,
not the installed package.
"""

import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STARTED = "COMA_GEN_STARTED"
"""Environment variable that preserves the parent process across the change of interpreter."""


def _find_parent() -> tuple[int, bool]:
    """Returns the id of the parent process, and whether it is `dvc` rather than a stage that launched ranks.

    It is called first, because the parent may exit at any time.
    """
    own, parent, by_dvc = [*os.environ.get(STARTED, "").split(), "", "", ""][:3]
    if own != str(os.getpid()):
        by_dvc = "dvc" if "DVC_STAGE" in os.environ and not own else "other"
        own, parent = str(os.getpid()), str(os.getppid())
        os.environ[STARTED] = f"{own} {parent} {by_dvc}"
    return int(parent), by_dvc == "dvc"


PARENT, BY_DVC = _find_parent()


def _enter_environment() -> None:
    """Re-executes the script with .venv's interpreter if there is one; exits if `dvc` found a wrong one."""
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
    """Runs `stage(params, workspace)`."""
    _enter_environment()
    sys.path.insert(0, str(ROOT / "src"))
    from coma_gen.workspace.stage import run_stage

    run_stage(stage, ROOT, parent=PARENT, by_dvc=BY_DVC)
