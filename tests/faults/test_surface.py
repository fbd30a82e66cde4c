"""Forbidden operations in the source: shells, pickles, YAML objects, sockets open to other machines."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from coma_gen.config import yaml_reader
from coma_gen.tracking import stage
from coma_gen.tracking.uri import ui_command

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(path for folder in ("src", "stages") for path in (ROOT / folder).rglob("*.py"))
TEXTS = sorted(
    [
        *CODE,
        *(ROOT / "src").rglob("*.j2"),
        ROOT / "Makefile",
        ROOT / "dvc.yaml",
        *filter(Path.is_file, (ROOT / ".ci").iterdir()),
    ]
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
            assert ast.unparse(options(call)["Loader"]) in ("_Loader", "_SafeLoader"), where
        if name == "np.load":
            allowed = options(call).get("allow_pickle")
            assert allowed is None or ast.unparse(allowed) == "False", where
    assert issubclass(yaml_reader._Loader, yaml.SafeLoader)
    assert stage._SafeLoader.__name__ in ("CSafeLoader", "SafeLoader")
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
            text = (ROOT / where.partition(":")[0]).read_text(encoding="utf-8")
            if not re.search(r"(?m)^\s*(from|import) (socket|http|asyncio|werkzeug|uvicorn)\b", text):
                continue  # another thing of that name
            constant = "HOST" in words and re.search(r'(?m)^HOST = "127\.0\.0\.1"$', text)
            assert constant or re.search(r"127\.0\.0\.1|localhost", words), where
    tally("another machine that asks", "nothing listens but on loopback", len(TEXTS))


def test_every_server_command_names_loopback(tally: Tally) -> None:
    """Whole ones: in a block of code, over its continued lines, or between backticks."""
    commands = []
    for path in [*TEXTS, ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        typed = re.findall(r"(?m)^ *(mlflow (?:models serve|server|ui)\b[^#\n]*)", text)
        quoted = re.findall(r"`(mlflow\s+(?:models\s+serve|server|ui)\s[^`]*)`", text)
        commands += [command for command in typed + quoted if "-" in command]
    assert commands
    for command in commands:
        assert re.search(r"(--host|-h)[ =](127\.0\.0\.1|localhost)", command), command
    tally("a server's command in code and pages", "says --host 127.0.0.1", len(commands))


def test_the_command_for_the_runs_names_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "--host 127.0.0.1" in ui_command(tmp_path)
    tally("the command that shows the runs", "says --host 127.0.0.1", 1)


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    """The searches above find each thing in a file that does it."""
    (tmp_path / "bad.py").write_text(
        "import os\nos.system('x')\nsubprocess.run('x', shell=True)\ntorch.load('x')\n"
    )
    found = list(calls(tmp_path / "bad.py"))
    assert [name for _, name, _ in found] == ["os.system", "subprocess.run", "torch.load"]
    assert [name for _, name, call in found if name in FORBIDDEN_CALLS] == ["os.system", "torch.load"]
    assert [name for _, name, call in found if "shell" in options(call)] == ["subprocess.run"]
