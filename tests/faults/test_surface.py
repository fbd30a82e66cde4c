"""What the code may not do at all: run shells, load pickles or YAML objects, listen to other machines."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(path for folder in ("src", "stages") for path in (ROOT / folder).rglob("*.py"))
TEXTS = sorted(
    [*CODE, *(ROOT / "src").rglob("*.j2"), ROOT / "Makefile", ROOT / "dvc.yaml", *(ROOT / ".ci").iterdir()]
)
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
FORBIDDEN_CALLS = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec", "compile",
    "__import__", "torch.load", "torch.save", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all",
    "pd.read_pickle", "tempfile.mktemp", "tarfile.TarFile.extractall", "shutil.unpack_archive",
}  # fmt: skip
FORBIDDEN_METHODS = {"extractall", "read_pickle", "to_pickle", "unsafe_load"}

Tally = Callable[[str, str, int], None]


def calls(path: Path) -> Iterator[tuple[int, str, ast.Call]]:
    """Line, name as written, and node of each call."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def options(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


@pytest.fixture(scope="module")
def every_call() -> list[tuple[str, str, ast.Call]]:
    return [
        (f"{path.relative_to(ROOT)}:{line}", name, node) for path in CODE for line, name, node in calls(path)
    ]


Calls = list[tuple[str, str, ast.Call]]


def test_no_shell_is_given_a_string(every_call: Calls, tally: Tally) -> None:
    found = [where for where, _, call in every_call if "shell" in options(call)]
    assert found == []
    for where, name, call in every_call:
        if name.startswith("subprocess.") and call.args:
            command = call.args[0]
            assert not isinstance(command, ast.Constant | ast.JoinedStr | ast.BinOp), f"{where}: a string"
    tally(
        "a command line built of somebody's words",
        "no code builds one: subprocesses get lists",
        len(every_call),
    )


def test_nothing_that_is_loaded_can_run_code(every_call: Calls, tally: Tally) -> None:
    assert [where for where, name, _ in every_call if name in FORBIDDEN_CALLS] == []
    assert [where for where, name, _ in every_call if name.rpartition(".")[2] in FORBIDDEN_METHODS] == []
    for where, name, call in every_call:
        if name == "yaml.load":
            assert ast.unparse(options(call)["Loader"]) == "_Loader", where
        if name == "np.load":
            allowed = options(call).get("allow_pickle")
            assert allowed is None or ast.unparse(allowed) == "False", where
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & FORBIDDEN_MODULES, path
    tally(
        "a file that runs code when it is loaded",
        "no code loads pickles, objects from YAML, or modules by name",
        len(CODE),
    )


def test_nothing_listens_to_other_machines(every_call: Calls, tally: Tally) -> None:
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"0\.0\.0\.0|--host[= ](?!127\.0\.0\.1|localhost)", text), path
    for where, name, call in every_call:
        given = [*call.args, *call.keywords]
        if name.rpartition(".")[2] in (
            "HTTPServer",
            "ThreadingHTTPServer",
            "create_server",
            "bind",
            "run_simple",
        ):
            words = " ".join(ast.unparse(each) for each in given)
            assert re.search(r"127\.0\.0\.1|localhost|LOOPBACK|host", words), where
    tally("another machine that asks", "nothing listens but on loopback", len(TEXTS))


def test_every_server_command_names_loopback(tally: Tally) -> None:
    lines = [
        line
        for path in [*TEXTS, ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"mlflow (models serve|server|ui)\b.*(-h |--host|--port)", line)
    ]
    assert lines
    for line in lines:
        assert re.search(r"(--host|-h)[ =](127\.0\.0\.1|localhost)", line), line
    tally("a server's command in code and pages", "says --host 127.0.0.1", len(lines))


def test_what_is_installed_is_pinned(tally: Tally) -> None:
    """What CI can audit without a network: exact versions of everything, from the index alone."""
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    named = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    for requirement in wanted:
        assert " @ " not in requirement and "://" not in requirement, requirement
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name and re.sub(r"[-_.]+", "-", name[0]).lower() in named, requirement
    assert all(re.fullmatch(r"[0-9][0-9A-Za-z.+!]*", version) for version in pins.values())
    tally("a package that changes under us", "each is pinned to one version", len(pins))


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    """The searches above find each thing in a file that does it."""
    (tmp_path / "bad.py").write_text(
        "import os\nos.system('x')\nsubprocess.run('x', shell=True)\ntorch.load('x')\n"
    )
    found = list(calls(tmp_path / "bad.py"))
    assert [name for _, name, _ in found] == ["os.system", "subprocess.run", "torch.load"]
    assert [name for _, name, call in found if name in FORBIDDEN_CALLS] == ["os.system", "torch.load"]
    assert [name for _, name, call in found if "shell" in options(call)] == ["subprocess.run"]
