"""The scripts of findings/ follow one form and are all listed; they are not run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_is_whole_and_stands_alone(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    head = [line.partition(":")[0] for line in text.splitlines() if line.startswith("# ")]
    assert [
        name for name in head if name in ("# Version", "# A good guess", "# Behavior", "# Output seen")
    ] == ["# Version", "# A good guess", "# Behavior", "# Output seen"]
    assert "set -euo pipefail" in text and "mktemp -d" in text and "trap 'rm -rf" in text
    assert os.access(script, os.X_OK)
    assert "coma" not in text and "http" not in text and "index-url" not in text
    installed = re.findall(r"pip install --quiet --disable-pip-version-check (.*)", text)
    assert installed and all(re.fullmatch(r"[\w.-]+==[\w.]+", name) for name in installed[0].split())
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_list_names_them_all() -> None:
    listed = re.findall(
        r"^\| ([\w-]+\.sh) \|", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert listed == [path.name for path in SCRIPTS]
