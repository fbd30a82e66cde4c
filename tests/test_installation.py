"""Installations: sizes, extras, containers, pins, and the usual commands."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from small_models import written_model
from subprocess_utils import environment

import coma_gen
from coma_gen.cli.main import main
from coma_gen.core import extras
from coma_gen.core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
MODULES = {
    "pyyaml": "yaml",
    "vl-convert-python": "vl_convert",
    "pretty-midi": "pretty_midi",
    "tensorboardx": "tensorboardX",
}
"""Packages that are imported by another name than their own."""
WITHOUT_ASKING = {"IPython", "multiprocess", "pydantic_core", "dvc_data"}
"""Of the notebook that one is in, and parts of datatrove, pydantic and dvc."""


def modules(lines: list[str]) -> set[str]:
    """What the packages of requirements are imported as."""
    names = {re.sub(r"[-_.]+", "-", Requirement(line).name).lower() for line in lines}
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


BASE = modules(PROJECT["dependencies"])
MORE = set().union(*map(modules, EXTRAS.values())) - BASE
BY_OTHERS = {"filelock", "jinja2", "markupsafe", "httpx2"}
"""Packages of extras that the base has too, as torch and MidiTok need them."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_model(tmp_path_factory.mktemp("model"))


@pytest.mark.slow
class TestSmallInstallation:
    """A Python in which nothing but the base can be imported."""

    BLOCKED = f"import sys\nsys.modules.update(dict.fromkeys({sorted(MORE - BY_OTHERS)}))\n"

    def run(self, program: str, folder: Path) -> str:
        command = [sys.executable, "-c", self.BLOCKED + program]
        done = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_generates_and_renders_outside_a_checkout(self, model: Path, tmp_path: Path) -> None:
        words = ["generate", "--model", str(model), "--seconds", "0.3", "--out", "new"]
        main_of = "from coma_gen.cli.main import main\nmain({})\n"
        self.run(main_of.format(words), tmp_path)
        made = {path.name for path in (tmp_path / "new").iterdir()}
        assert {"piece-01.mid", "piece-01.png", "piece-01.flac", "settings.json"} <= made
        waltz = ROOT / "examples" / "prompts" / "waltz.mid"
        self.run(main_of.format(["render", str(waltz), "--out", "seen"]), tmp_path)
        assert (tmp_path / "seen" / "waltz.png").exists()

    def test_has_the_python_api(self, model: Path, tmp_path: Path) -> None:
        program = f"""
from coma_gen import load_model
model = load_model({str(model)!r})
piece = model.generate(seconds=0.3, seed=1)
for name in ("out.mid", "out.png", "out.flac"):
    piece.save(name)
print(model.score("out.mid").notes if len(piece.notes) else 0)
"""
        assert int(self.run(program, tmp_path)) >= 0
        assert (tmp_path / "out.flac").exists()


def test_all_that_the_source_imports_is_declared() -> None:
    imported = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    used = MORE - set().union(*(modules(EXTRAS[name]) for name in ("dev", "bench", "docs")))
    assert imported - sys.stdlib_module_names - {"coma_gen"} - WITHOUT_ASKING <= BASE | used


def test_the_extras_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    demo = {"pipeline", "serve"}
    everything = demo | {"scale", "tensorboard", "dev", "bench", "docs"}
    installed = [set(names.split(",")) for names in re.findall(r"-e '\.\[([\w,]+)\]'", makefile)]
    assert installed == [demo, everything] and set(EXTRAS) == everything
    for target, needs in (
        ("demo", "READY"),
        ("test", "DEV_READY"),
        ("lint", "DEV_READY"),
        ("serve", "READY"),
    ):
        assert re.search(rf"^{target}: \$\({needs}\)", makefile, re.MULTILINE)


def test_dvc_reads_yaml_by_libyaml() -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.cyaml import CParser

    assert YAML(typ="safe").Parser is CParser


class TestMissingExtra:
    @pytest.fixture(autouse=True)
    def _lacking(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = ["numpy>=2", "nothing-of-the-kind>=1; extra == 'pipeline'", 'absent; extra == "serve"']
        monkeypatch.setattr(extras, "requires", lambda name: lines)

    def test_is_named_with_what_to_type(self) -> None:
        with pytest.raises(UserError) as caught:
            extras.require_extra("pipeline", where="coma-gen summary")
        (fault,) = caught.value.faults
        assert fault.where == "coma-gen summary" and fault.got == "no nothing-of-the-kind"
        assert "pip install 'coma-gen[pipeline]'" in fault.remedy

    @pytest.mark.parametrize("command", ["summary", "experiments", "serve", "doctor"])
    def test_ends_a_command(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        with pytest.raises(SystemExit, match=f"coma-gen {command}: must find the packages of"):
            main([command])

    def test_ends_the_loading_of_a_registered_model(self, tmp_path: Path) -> None:
        from coma_gen.tracking.model_store import find_model_store

        with pytest.raises(UserError, match=r"coma-gen\[serve\]"):
            find_model_store("models:/coma-gen@champion", tmp_path)

    def test_is_nothing_to_who_has_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extras, "requires", lambda name: ["numpy>=2; extra == 'pipeline'"])
        extras.require_extra("pipeline", where="x")

    def test_is_not_looked_for_where_coma_gen_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> list[str]:
            raise extras.PackageNotFoundError(name)

        monkeypatch.setattr(extras, "requires", missing)
        extras.require_extra("pipeline", where="x")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"coma-gen {coma_gen.__version__}\n"


class TestCompletion:
    def test_bash_completes_commands_options_and_files(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["completion", "bash"])
        script = tmp_path / "script"
        script.write_text(capsys.readouterr().out)
        (tmp_path / "waltz.mid").touch()

        function = next(iter(re.findall(r"complete .*-F (\S+)", script.read_text())))

        def complete(*words: str) -> set[str]:
            line = " ".join(f"'{word}'" for word in ("coma-gen", *words))
            program = (
                f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; {function} coma-gen; "
                'printf "%s\\n" "${COMPREPLY[@]}"'
            )
            command = ["bash", "-c", program]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
            return set(done.stdout.split())

        assert {"generate", "render", "experiments"} <= complete("")
        assert "--prompt-seconds" in complete("generate", "--prompt-")
        assert complete("generate", "--audio", "fl") == {"flac"}
        assert "waltz.mid" in complete("generate", "--prompt", "wal")

    @pytest.mark.parametrize("shell", ["zsh", "tcsh"])
    def test_of_other_shells(self, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["completion", shell])
        assert "coma-gen" in capsys.readouterr().out


def test_the_page_of_the_package_has_no_link_that_leads_nowhere() -> None:
    page = (ROOT / PROJECT["readme"]).read_text(encoding="utf-8")
    assert "pip install" in page
    assert re.findall(r"\]\((?!https://)[^)]*\)|src=", page) == []


class TestContainer:
    LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    STEPS = tuple(line.split(maxsplit=1) for line in LINES if line and not line.startswith("#"))

    def test_its_base_is_pinned(self) -> None:
        bases = [words.split()[0] for step, words in self.STEPS if step == "FROM"]
        stages = {words.split(" AS ")[1] for step, words in self.STEPS if step == "FROM"}
        (outside,) = set(bases) - stages
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", outside)
        assert tuple(map(int, re.findall(r"\d+", outside)[:2])) >= (3, 11)

    def test_it_does_not_run_as_root(self) -> None:
        users = [words for step, words in self.STEPS if step == "USER"]
        assert users == ["pianist"] and any(
            "useradd" in words and "pianist" in words for _, words in self.STEPS
        )
        copies = [words for step, words in self.STEPS if step == "COPY"]
        assert copies and all(words.startswith("--chown=pianist ") for words in copies)

    def test_it_runs_what_the_makefile_has(self) -> None:
        text = "\n".join(words for step, words in self.STEPS if step in ("RUN", "CMD"))
        targets = re.findall(r'make"?,? "?([\w./-]+)', text.replace("git make", ""))
        assert targets == [".venv/.installed", "demo"] and "demo" in TARGETS
        assert {step for step, _ in self.STEPS} <= {"FROM", "RUN", "USER", "WORKDIR", "COPY", "CMD", "ARG"}

    def test_the_devcontainer_uses_it(self) -> None:
        folder = ROOT / ".devcontainer"
        settings = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
        build = settings["build"]
        assert (folder / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
        assert (folder / build["context"]).resolve() == ROOT
        assert any(words.endswith(f" AS {build['target']}") for step, words in self.STEPS if step == "FROM")
        assert ["USER", settings["remoteUser"]] in self.STEPS
        assert settings["postCreateCommand"] == "make .venv/.installed-dev"

    def test_what_git_ignores_is_not_sent(self) -> None:
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
        assert {".venv/", "data/", ".dvc/cache/"} <= set(ignored) and ".git" not in ignored

    @pytest.mark.slow
    def test_it_builds(self) -> None:
        if (
            shutil.which("docker") is None
            or subprocess.run(["docker", "info"], capture_output=True).returncode
        ):
            pytest.skip("there is no docker, or it does not run")
        subprocess.run(["docker", "build", "--quiet", "--target", "base", str(ROOT)], check=True)


@pytest.fixture
def write_pins() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_pins", ROOT / ".ci" / "write_pins.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pins_are_the_versions_that_pip_chose(write_pins: ModuleType) -> None:
    chosen = [("torch", "2.13.0+cpu"), ("coma-gen", "0.2.0"), ("Jinja2", "3.1.6"), ("dvc", "3.67.1")]
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in chosen]}
    head, *lines = write_pins.pins(report).splitlines()
    assert lines == ["dvc==3.67.1", "Jinja2==3.1.6", "torch==2.13.0"]
    assert head == (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[0]


def test_old_pins_stay_where_pip_fails(
    write_pins: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constraints.txt").write_text("old==1\n")
    monkeypatch.setattr(write_pins.sys, "executable", "false")
    with pytest.raises(SystemExit, match=r"pip failed with status 1; constraints\.txt is as it was"):
        write_pins.main(tmp_path / "constraints.txt")
    assert (tmp_path / "constraints.txt").read_text() == "old==1\n"
