"""The doctor: no findings in a good checkout, and each possible problem with its remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from coma_gen.cli.main import main
from coma_gen.core.artifact import write_manifest
from coma_gen.core.io import sha256_bytes
from coma_gen.corpus.maestro import ARCHIVE_VARIABLE
from coma_gen.corpus.maestro_mini import SDIST
from coma_gen.workspace import data_checks, environment_checks
from coma_gen.workspace.data_checks import KINDS, sweep
from coma_gen.workspace.doctor import examine, format_findings
from coma_gen.workspace.finding import Finding
from coma_gen.workspace.paths import Workspace

ROOT = Path(__file__).resolve().parents[2]
WEEKS = 30 * 24 * 3600


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A checkout in which everything has run and nothing is wrong."""
    for name in ("DVC_ROOT", ARCHIVE_VARIABLE, "GIT_AUTHOR_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    root = tmp_path / "check out"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, root)
    digests: dict[str, str] = {}
    for kind in KINDS:
        (root / "data" / kind).mkdir(parents=True)
        (root / "data" / kind / "a").write_text(kind)
        made_from = dict([digests.popitem()]) if digests else {}
        digests[kind] = write_manifest(
            root / "data" / kind, kind=kind, made_from=made_from, settings={}
        ).digest
    (root / ".downloads").mkdir()
    (root / ".downloads" / SDIST).write_bytes(b"archive")
    monkeypatch.setattr(data_checks, "SDIST_SHA256", sha256_bytes(b"archive"))
    for digest in ("training_digest", "sharding_digest"):
        monkeypatch.setattr(data_checks, digest, lambda root: "f" * 64)
    (root / ".dvc" / "tmp").mkdir(parents=True)
    (root / ".dvc" / "tmp" / "rwlock").write_text("{}")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.email", "t@example.org")
    git(root, "config", "user.name", "t")
    git(root, "add", "params.yaml", "dvc.yaml")
    git(root, "commit", "-q", "-m", "begin")
    return Workspace.here(root)


def test_a_good_checkout_has_nothing(workspace: Workspace) -> None:
    assert examine(workspace) == []
    assert format_findings([]) == "doctor: nothing is wrong"


def edit_params(workspace: Workspace) -> None:
    text = workspace.params.read_text().replace("steps: 900", "steps: 901")
    workspace.params.write_text(text)


def break_params(workspace: Workspace) -> None:
    workspace.params.write_text(workspace.params.read_text().replace("  steps:", "  stepps:"))


def object_of(workspace: Workspace, content: bytes, *, name: str) -> None:
    path = workspace.home / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def resume_folder(workspace: Workspace, *, age: float) -> Path:
    folder = workspace.resume / "0123abcd"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "weights").write_bytes(bytes(5000))
    (folder / "trainer.lock").touch()
    for path in (folder / "checkpoints" / "weights", folder / "checkpoints", folder / "trainer.lock", folder):
        os.utime(path, (time.time() - age,) * 2)
    return folder


TROUBLES: dict[str, tuple[Callable[[Workspace], object], str, str, bool]] = {
    "an empty rwlock": (
        lambda w: (w.home / ".dvc/tmp/rwlock").write_text(""),
        "rwlock is empty",
        "rm .dvc/tmp/rwlock",
        True,
    ),
    "a damaged rwlock": (
        lambda w: (w.home / ".dvc/tmp/rwlock").write_text('{"a": {"write": 3}}'),
        "damaged",
        "rm .dvc/tmp/rwlock",
        True,
    ),
    "a dvc at work": (
        lambda w: (w.home / ".dvc/tmp/rwlock").write_text(
            json.dumps({"data": {"write": {"pid": os.getpid(), "cmd": "dvc repro"}}})
        ),
        f"process {os.getpid()} (dvc repro) holds",
        "wait for it",
        False,
    ),
    "a lock of git": (
        lambda w: (w.home / ".git/index.lock").touch(),
        "index.lock is left over",
        "rm .git/index.lock",
        True,
    ),
    "a lock of an experiment": (
        lambda w: ((w.home / ".git/refs/exps").mkdir(), (w.home / ".git/refs/exps/x.lock").touch()),
        "x.lock",
        "rm .git/refs/exps/x.lock",
        True,
    ),
    "no identity": (
        lambda w: git(w.home, "config", "--unset", "user.email"),
        "no name for you",
        "git config user.name",
        True,
    ),
    "no git": (lambda w: shutil.rmtree(w.home / ".git"), "no git repository", "git clone", True),
    "other params": (edit_params, "not the committed one", "git restore params.yaml", False),
    "wrong params": (break_params, "Did you mean 'steps'?", "edit params.yaml", True),
    "no archive": (lambda w: (w.downloads / SDIST).unlink(), f"{SDIST} is not here yet", "be online", False),
    "a damaged archive": (
        lambda w: (w.downloads / SDIST).write_text("x"),
        "is not what was",
        f"rm .downloads/{SDIST}",
        True,
    ),
    "no shards": (lambda w: shutil.rmtree(w.data("shards")), "no shards here", "dvc repro", False),
    "a damaged model": (
        lambda w: (w.data("model") / "a").write_text("x"),
        "data/model/a: must hold",
        "rm -r data/model",
        True,
    ),
    "a lost table": (
        lambda w: (w.data("split") / "a").unlink(),
        "data/split/a: is named in",
        "rm -r data/split",
        True,
    ),
    "a surplus file": (
        lambda w: (w.data("corpus") / "b").touch(),
        "data/corpus/b: is not named",
        "rm -r data/corpus",
        True,
    ),
    "another split": (
        lambda w: write_manifest(w.data("split"), kind="split", made_from={"corpus": "0"}, settings={}),
        "data/split was made from another corpus",
        "dvc repro",
        False,
    ),
    "a damaged cache": (
        lambda w: object_of(w, b"abd", name="900150983cd24fb0d6963f7d28e17f72"),
        ".dvc/cache/files/md5/90/0150983cd24fb0d6963f7d28e17f72 is damaged",
        "rm -f .dvc/cache/files/md5/90/01",
        True,
    ),
    "a damaged list in the cache": (
        lambda w: object_of(w, b"abd", name="900150983cd24fb0d6963f7d28e17f72.dir"),
        "is damaged",
        "rm -f .dvc",
        True,
    ),
    "abandoned checkpoints": (
        lambda w: resume_folder(w, age=WEEKS),
        "(5 KiB, 30 days old) is of other params",
        "doctor --sweep",
        False,
    ),
    "a half-made folder": (
        lambda w: (w.root / "data/.model.x.partial").mkdir(),
        "never finished",
        "rm -r data/.model.x",
        False,
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_each_trouble_is_named_with_what_to_type(trouble: str, workspace: Workspace) -> None:
    make, problem, todo, is_wrong = TROUBLES[trouble]
    make(workspace)
    found = examine(workspace)
    text = format_findings(found)
    assert problem in text and todo in text
    assert any(problem in each.problem and todo in each.todo and each.is_wrong == is_wrong for each in found)
    assert any(each.is_wrong for each in found) == is_wrong, "and nothing else is wrong"


def test_what_is_whole_in_the_cache_is_not_named(workspace: Workspace) -> None:
    object_of(workspace, b"abc", name="900150983cd24fb0d6963f7d28e17f72")
    assert examine(workspace) == []


def test_a_cache_elsewhere_is_looked_at(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.home / ".dvc" / "config").write_text(
        "[core]\n    analytics = false\n[cache]\n    dir = ../../shared\n"
    )
    path = tmp_path / "shared" / "files" / "md5" / "90" / "0150983cd24fb0d6963f7d28e17f72"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"abd")
    assert "../shared/files/md5/90/0150983cd24fb0d6963f7d28e17f72 is damaged" in format_findings(
        examine(workspace)
    )


def test_many_damaged_files_are_counted(workspace: Workspace) -> None:
    for number in range(20):
        (workspace.data("model") / f"\x1b[2J{number}").touch()
    text = format_findings(examine(workspace))
    assert "data/model: 12 more files like these" in text
    assert "\x1b" not in text and "\\x1b[2J0: is not named" in text


def test_a_shallow_clone(workspace: Workspace, tmp_path: Path) -> None:
    git(workspace.home, "commit", "-q", "--allow-empty", "-m", "more")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{workspace.home}", str(shallow))
    found = list(environment_checks.git(Workspace.here(shallow)))
    assert [each.todo for each in found if "shallow" in each.problem] == ["git fetch --unshallow"]


def test_other_versions_and_an_old_python(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.root / "constraints.txt").write_text("numpy==0.0.1\nno-such-package==1\ntorch==2.13.0\n")
    monkeypatch.setattr(
        environment_checks, "version", lambda name: {"numpy": "2.4.0", "torch": "2.13.0+cpu"}[name]
    )
    monkeypatch.setattr(environment_checks, "PackageNotFoundError", KeyError)
    [found] = environment_checks.packages(workspace)
    assert "numpy 2.4.0 (not 0.0.1)" in found.problem and "torch" not in found.problem
    assert "-c constraints.txt" in found.todo
    monkeypatch.setattr(environment_checks, "PYTHON", (4, 0))
    [found] = environment_checks.python(workspace)
    assert "4.0 or newer is needed" in found.problem


def test_a_full_disk_and_one_that_cannot_be_written(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_checks, "MIN_FREE_BYTES", 2**60)
    monkeypatch.setattr(environment_checks.os, "access", lambda *_: False)
    assert [each.what for each in environment_checks.disk(workspace)] == ["disk", "disk"]


def test_archives_that_are_named_and_not_there(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ARCHIVE_VARIABLE, "/nowhere/maestro.zip")
    text = workspace.params.read_text()
    workspace.params.write_text(text.replace("corpus: maestro-mini", "corpus: folder"))
    problems = [each.problem for each in data_checks.archives(workspace)]
    assert len(problems) == 2
    assert "/nowhere/maestro.zip" in problems[0] and "music, which is not a folder" in problems[1]


class TestSweep:
    def test_only_what_nobody_comes_back_to(self, workspace: Workspace) -> None:
        folder = resume_folder(workspace, age=3600)
        assert sweep(workspace) == [], "an hour old"
        shutil.rmtree(folder)
        resume_folder(workspace, age=WEEKS)
        with FileLock(folder / "trainer.lock"):
            os.utime(folder / "trainer.lock", (0, 0))
            assert sweep(workspace) == [], "a trainer holds it"
        assert sweep(workspace) == [(folder, 5000)]
        assert not folder.exists() and workspace.resume.exists()

    def test_not_what_the_present_params_go_on_from(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = resume_folder(workspace, age=WEEKS)
        parts = workspace.resume / f"shard-{'e' * 16}"
        shutil.copytree(folder, parts, copy_function=shutil.copy2)
        monkeypatch.setattr(data_checks, "training_digest", lambda root: "0123abcd")
        monkeypatch.setattr(data_checks, "sharding_digest", lambda root: "e" * 64)
        assert sweep(workspace) == [] and folder.exists() and parts.exists()
        monkeypatch.setattr(data_checks, "sharding_digest", lambda root: "f" * 64)
        assert [path for path, _ in sweep(workspace)] == [parts]

    def test_nothing_where_nobody_can_tell(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(root: Path) -> str:
            raise ModuleNotFoundError("torch")

        folder = resume_folder(workspace, age=WEEKS)
        monkeypatch.setattr(data_checks, "training_digest", unknown)
        assert sweep(workspace) == [] and folder.exists()


class TestCommand:
    def ended(self, *arguments: str) -> object:
        with pytest.raises(SystemExit) as stopped:
            main(["doctor", *arguments])
        return stopped.value.code

    def test_its_status_says_whether_something_is_wrong(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(workspace.root)
        assert self.ended() == 0
        assert capsys.readouterr().out == "doctor: nothing is wrong\n"
        resume_folder(workspace, age=WEEKS)
        assert self.ended() == 0, "a note is nothing wrong"
        assert "1 to know" in capsys.readouterr().out
        assert self.ended("--sweep") == 0
        assert capsys.readouterr().out == "removed .resume/0123abcd (5 KiB)\ndoctor: nothing is wrong\n"
        (workspace.home / ".dvc" / "tmp" / "rwlock").write_text("")
        assert self.ended("--json") == 1
        assert [Finding(**each).what for each in json.loads(capsys.readouterr().out)] == ["dvc"]


class TestEnvironment:
    def test_another_python_before_the_project_s_own_is_named(
        self, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "conda" / "python3"
        other.parent.mkdir()
        other.symlink_to(sys.executable)
        monkeypatch.setenv("PATH", os.pathsep.join([str(other.parent), os.environ["PATH"]]))
        (finding,) = examine(workspace)
        assert finding.is_wrong and f"`dvc` would run stages with {other}" in finding.problem

    def test_stages_run_in_the_venv_wherever_this_runs(self, workspace: Workspace) -> None:
        python = workspace.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        (finding,) = examine(workspace)
        assert not finding.is_wrong and "stages run in .venv" in finding.problem
        python.unlink()
        python.symlink_to(workspace.root / "gone")
        (finding,) = examine(workspace)
        assert finding.is_wrong and finding.todo == "rm -r .venv; make .venv/.installed"

    def test_an_address_of_no_use_is_named(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(workspace.root)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
        with pytest.raises(SystemExit) as stopped:
            main(["doctor"])
        assert stopped.value.code == 1 and "MLFLOW_TRACKING_URI: must be" in capsys.readouterr().out
