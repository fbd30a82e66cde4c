"""The commands of the README run, and the files it names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from dvc.cli.parser import get_main_parser

from coma_gen.cli.main import main
from coma_gen.config.yaml_reader import read_yaml
from coma_gen.core.io import read_json, write_atomic
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.summary import summary

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "music" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
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
    elif program == "bash":
        assert (ROOT / arguments[0]).is_file()
    elif arguments[:1] == ["-m"] and arguments[1].startswith(("benchmarks", "coma_gen")):
        assert program in ("python", "python3")
        folder = ROOT if arguments[1].startswith("benchmarks") else ROOT / "src"
        assert (folder / arguments[1].replace(".", "/")).with_suffix(".py").exists()
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
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


class TestFirstScreen:
    """What somebody sees before they scroll: some thirty lines."""

    SCREEN = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:30])

    def test_shows_a_picture_that_loads_at_once(self) -> None:
        text, target = re.findall(r"!\[([^]]+)\]\(([^)]+)\)", self.SCREEN)[0]
        picture = (ROOT / target).read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) < 300_000 and len(text) > 40
        assert int.from_bytes(picture[16:20], "big") >= 1600  # pixels: full width, also on a dense screen

    def test_has_a_command_that_runs_and_what_it_prints(self) -> None:
        (language, typed), (_, printed), *_ = FENCED.findall(self.SCREEN + "\n```")
        commands = [line.partition("#")[0].split() for line in typed.strip().splitlines()]
        assert language == "sh" and ["make", "demo"] in commands
        assert all(make == "make" and target in TARGETS for make, target in commands)
        assert printed.startswith("coma-gen: maestro-mini")

    def test_what_the_demo_prints_is_what_is_committed(self, tmp_path: Path) -> None:
        for name in ("download", "train", "baseline", "evaluate"):
            done = subprocess.run(
                ["git", "show", f"HEAD:./metrics/{name}.json"], cwd=ROOT, capture_output=True, check=False
            )
            if done.returncode:
                pytest.skip("this is no git checkout")
            write_atomic(tmp_path / "metrics" / f"{name}.json", done.stdout)
        wanted = summary(Workspace.here(tmp_path)).splitlines()
        printed = next(body for _, body in FENCED.findall(README) if body.startswith("coma-gen: "))
        shown = [line for line in printed.splitlines() if "samples" not in line and line.strip() != "..."]
        assert len(shown) > 8 and set(shown) <= set(wanted)
        test = read_json(tmp_path / "metrics" / "evaluate.json")["test"]["bits_per_note_10ms"]
        assert f"| **{test:.2f}** |" in README


def test_pictures_are_light() -> None:
    pictures = {target for page in PAGES for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())}
    assert len(pictures) > 10
    for picture in pictures:
        found = [path for path in (ROOT / picture, ROOT / "docs" / picture) if path.exists()]
        assert found and found[0].stat().st_size < 300_000, picture


def test_the_picture_of_the_pipeline_has_every_stage() -> None:
    picture = (ROOT / "docs" / "pictures" / "pipeline.svg").read_text(encoding="utf-8")
    drawn = re.findall(r'<text class="name"[^>]*>([^<]+)</text>', picture)
    assert set(read_yaml(ROOT / "dvc.yaml")["stages"]) == set(drawn) - {"the model"}


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


@pytest.mark.parametrize(
    "command", [["make", "help"], [sys.executable, "-m", "coma_gen.cli", "--help"]], ids=" ".join
)
def test_quick_commands_run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=None)
    assert "demo" in done.stdout or "experiment" in done.stdout
