"""What the README says to type can be typed, and what it says is there is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.cli.parser import get_main_parser

from coma_gen.cli import main
from coma_gen.params.reading import read_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "music" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`((?:\.venv/bin/)?(?:make|dvc|coma-gen)(?: [^`]*)?)`")
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
PARAMS = read_yaml(ROOT / "params.yaml")


def commands(page: Path) -> list[str]:
    """Every command of a page: lines of its shell blocks, indented blocks, and code in running text."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = [body for language, body in FENCED.findall(text) if language == "sh"]
    lines = [line.split("#")[0].strip() for body in blocks for line in body.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    dvc ")]
    return [
        line
        for line in [*lines, *INLINE.findall(text)]
        if line and not line.startswith(("source", "git", "cd", "export"))
    ]


ALL = sorted({(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)})


def check_dvc(arguments: list[str]) -> None:
    parsed = get_main_parser().parse_args(arguments)
    assert parsed.cmd
    for change in getattr(parsed, "set_param", None) or ():
        section, key = change.split("=")[0].split(".")
        assert key in PARAMS[section], change


@pytest.mark.parametrize(("page", "command"), ALL)
def test_command_can_be_typed(page: str, command: str) -> None:
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "make":
        assert {word for word in arguments if "=" not in word} <= set(TARGETS)
        for extra in (word.removeprefix("ARGS=") for word in arguments if word.startswith("ARGS=")):
            if arguments[0] == "serve":
                with pytest.raises(SystemExit, match="0"):
                    main(["serve", *shlex.split(extra), "--help"])
            else:
                check_dvc(["exp", "run", *shlex.split(extra)])
    elif program == "dvc" and arguments:
        check_dvc(arguments)
    elif program == "coma-gen":
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--help"])
        assert ended.value.code == 0
    elif arguments[:1] == ["-m"] and arguments[1].startswith("benchmarks"):
        assert program == "python"
        assert (ROOT / arguments[1].replace(".", "/")).with_suffix(".py").exists()
    else:
        others = [
            "curl",
            "dvc",
            "mlflow",
            "pip",
            "printf",
            "python3",
            "rm",
            "sbatch",
            "srun",
            "tar",
            "torchrun",
        ]
        assert program in others, command


def test_there_are_commands_to_test() -> None:
    assert {"make demo", "make test", "make maestro", "make maestro-cpu"} <= {command for _, command in ALL}


def test_what_the_tree_names_exists() -> None:
    tree = next(
        body for _, body in FENCED.findall((ROOT / "README.md").read_text()) if "src/coma_gen/" in body
    )
    names = re.findall(r"[\w./]+(?:\.py|\.yaml|\.md|/)(?=\s|$)", tree, re.MULTILINE)
    assert len(names) > 15
    for name in set(names) - {"data/"}:  # which the stages make
        assert (ROOT / name).exists() or (ROOT / "src" / "coma_gen" / name).exists(), name


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    "command", [["make", "help"], [sys.executable, "-m", "coma_gen.cli", "--help"]], ids=" ".join
)
def test_quick_commands_run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=None)
    assert "demo" in done.stdout or "experiment" in done.stdout
