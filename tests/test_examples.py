"""Everything in examples/ runs, and its prompts equal the output of their script."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import written_model
from subprocess_utils import environment

from coma_gen.midi.io import read_notes

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_model(tmp_path_factory.mktemp("model"))


def run_python(*arguments: object, folder: Path) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_prompts_are_made_by_their_script(tmp_path: Path) -> None:
    output = run_python(EXAMPLES / "make_prompts.py", tmp_path, folder=tmp_path)
    committed = {path.name: path.read_bytes() for path in (EXAMPLES / "prompts").glob("*.mid")}
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.mid")} == committed
    assert len(committed) == len(output.splitlines()) == 3
    for content in committed.values():
        notes = read_notes(content)
        assert 8 < notes.end < 15 and len(notes) > 50 and len(set(notes.velocity.tolist())) > 8


@pytest.mark.slow
def test_the_script_continues_a_prompt(model: Path, tmp_path: Path) -> None:
    words = [EXAMPLES / "prompts" / "waltz.mid", "--model", model, "--seconds", "0.3", "--out", "new/waltz"]
    lines = run_python(EXAMPLES / "continue_midi.py", *words, folder=tmp_path).splitlines()
    assert re.fullmatch(r"waltz.mid: \d+\.\d\d bits per note", lines[0])
    assert [line.split(":")[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert lines[4:] == ["new/waltz.mid", "new/waltz.png", "new/waltz.flac"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "waltz.flac",
        "waltz.mid",
        "waltz.png",
    ]


@pytest.mark.parametrize(
    ("page", "blocks", "written"),
    [("README.md", 1, {"out.mid"}), ("docs/python.md", 4, {"out.mid", "out.png", "out.flac", "out.ogg"})],
)
def test_the_lines_of_a_page_run_as_they_stand(
    page: str, blocks: int, written: set[str], model: Path, tmp_path: Path
) -> None:
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) >= blocks
    (tmp_path / "my.mid").write_bytes((EXAMPLES / "prompts" / "chorale.mid").read_bytes())
    code = "\n".join(found).replace('"models:/coma-gen@champion"', repr(str(model)))
    code = re.sub(r"seconds=\d+", "seconds=0.3", code).replace("piece.show()", "piece._repr_html_()")
    (tmp_path / "page.py").write_text(code)
    run_python(tmp_path / "page.py", folder=tmp_path)
    assert written <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(model: Path, tmp_path: Path) -> None:
    notebook = json.loads((EXAMPLES / "explore.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5 and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells) + "\nprint(len(piece._repr_html_()))"
    code = re.sub(r"seconds=\d+", "seconds=0.3", code).replace("load_model()", f"load_model({str(model)!r})")
    (tmp_path / "prompts").symlink_to(EXAMPLES / "prompts")
    (tmp_path / "cells.py").write_text(code)
    *lines, page = run_python(tmp_path / "cells.py", folder=tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["waltz", "prelude", "chorale", *["temperature"] * 3]
    assert int(page) > 1000
