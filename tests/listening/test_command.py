"""`coma-gen listen` from page to score, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_corpus import Made

from coma_gen.cli.main import main
from coma_gen.listening.answer_key import ANSWERS, AnswerKey

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(*arguments: str) -> object:
    with pytest.raises(SystemExit) as stopped:
        main(["listen", *arguments])
    return stopped.value.code


def test_from_page_to_score(made: Made, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(made.model.parent), "--model", str(made.model), "--sources", "model,real"]
    words += ["--trials", "2", "--seconds", "2", "--prompt-seconds", "1"]
    assert ended(*words) == 0
    told = capsys.readouterr().out
    assert "listening.html: 2 trials" in told and "it may have seen the test pieces" in told
    assert "must not exist yet" in str(ended(*words))
    first = (checkout / "listening.html").read_bytes()
    assert ended(*words, "--force") == 0
    assert (checkout / "listening.html").read_bytes() == first
    sealed = AnswerKey.from_page(checkout / "listening.html")
    answers = [{"trial": number, "choice": "A", "clearly": False} for number in (1, 2)]
    content = {"kind": ANSWERS, "page": sealed.digest, "listener": "Ada", "answers": answers}
    (checkout / "answers.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert ended("--score", "answers.json") == 0
    assert "1 : 1" in capsys.readouterr().out, "each source was on side A once"
    (checkout / "answers.json").write_text(json.dumps(content | {"page": "other"}))
    assert "must belong to the page" in str(ended("--score", "answers.json"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--sources", "real"], "two or more different names"),
        (["--sources", "real,real"], "two or more different names"),
        (["--trials", "0"], "--trials: must be 1 to 500, got 0"),
        (["--seconds", "nan"], "--seconds: must be 2 to 300"),
        (["--score", "answers.json"], "must be a page that `coma-gen listen` made, got no such file"),
        (["--sources", "real,none"], "must be a model's folder"),
        (["--sources", "real,5-gram"], "tokenizer"),
    ],
)
def test_a_fault_is_one_line(arguments: list[str], text: str, checkout: Path) -> None:
    code = ended(*arguments)
    assert isinstance(code, str) and text in code and len(code.splitlines()) == 1
    assert not (checkout / "listening.html").exists()
