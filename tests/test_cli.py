"""The command line: helpful help texts, and one-line errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from coma_gen.cli.main import main
from coma_gen.core.io import write_json

ROOT = Path(__file__).resolve().parents[1]
SPLIT = {"performances": 962, "hours": 159.244, "notes": 5659328}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "presets").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(*arguments: str) -> object:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--help") == 0
    text = capsys.readouterr().out
    assert "examples" in text and "coma-gen experiment maestro" in text


def test_without_a_command_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended() == 2
    assert "examples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("generat", "there is no command 'generat' (did you mean generate?). See coma-gen --help"),
        ("verfiy", "there is no command 'verfiy' (did you mean verify?)"),
        ("zzz", "there is no command 'zzz'. See coma-gen --help"),
    ],
)
def test_an_unknown_command_names_the_one_most_like_it(
    word: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(word) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coma-gen: {told}") and error.count("\n") == 1


def test_figures_of_the_splits(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(checkout / "metrics" / "split.json", {"train": SPLIT, "validation": SPLIT, "test": SPLIT})
    (checkout / "deep").mkdir()
    assert ended("figures") == 0
    assert "train                  962     159.2   5,659,328" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["figures"], "split.json: this file must exist"),
        (["summary"], "download.json: this file must exist"),
        (["experiment", "none"], "must be a file in presets/"),
        (["verify"], "must be committed"),
    ],
)
def test_a_fault_is_one_line(arguments: list[str], text: str, checkout: Path) -> None:
    code = ended(*arguments)
    assert isinstance(code, str) and text in code and len(code.splitlines()) == 1


def test_the_ui_is_this_process_which_ends_when_it_is_told_to(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    became: list[tuple[str, list[str], Path]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: became.append((program, words, Path.cwd())))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "")  # so that what the command sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert ended("ui", "--port", "5009") == 0
    ((program, words, folder),) = became
    assert (program, folder) == (sys.executable, checkout)
    assert words[1:4] == ["-m", "mlflow", "ui"] and words[-4:-2] == ["--port", "5009"]
    assert (os.environ["MLFLOW_LOGGING_LEVEL"], os.environ["PYTHONWARNINGS"]) == ("WARNING", "error")
    assert "open http://127.0.0.1:5009/" in capsys.readouterr().out


def test_outside_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "must be in a coma-gen checkout" in str(ended("summary"))


@pytest.mark.parametrize("arguments", [["verify", "--fast"], ["unknown"], ["ui", "--port", "many"], []])
def test_unknown_options_are_refused(arguments: list[str], checkout: Path) -> None:
    assert ended(*arguments) == 2
