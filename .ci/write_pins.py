"""Writes constraints.txt: the newest versions of all dependencies that fit pyproject.toml and each other.

pip resolves them without installing anything. `make pins` runs this; then `make test` and `make demo` show
whether the results hold, and dvc.lock and metrics/ are committed with the new pins where they do not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEAD = (
    "# Exact versions that the committed results were made with; `make` installs with `-c constraints.txt`.\n"
)


def resolve() -> dict[str, Any]:
    """The report of pip on what it would install into an empty environment, all extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = f"{ROOT}[{','.join(project['optional-dependencies'])}]"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), wanted], check=True)
        return dict(json.loads(report.read_text(encoding="utf-8")))


def pins(report: dict[str, Any]) -> str:
    """The text of constraints.txt, by pip's report."""
    found = [each["metadata"] for each in report["install"]]
    lines = [
        f"{each['name']}=={each['version'].partition('+')[0]}\n"
        for each in found
        if each["name"] != "coma-gen"
    ]
    return HEAD + "".join(sorted(lines, key=lambda line: line.partition("==")[0].lower()))


def main(destination: Path = ROOT / "constraints.txt") -> None:
    """Resolves, then writes; where pip fails, the old pins stay."""
    print("Resolving all dependencies, which takes some minutes ...", flush=True)
    try:
        text = pins(resolve())
    except subprocess.CalledProcessError as error:
        sys.exit(f"make pins: pip failed with status {error.returncode}; {destination.name} is as it was")
    destination.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
