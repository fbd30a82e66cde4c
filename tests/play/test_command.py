"""`coma-gen play` on the command line: errors are reported before anything is loaded."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
from subprocess_utils import started, wait_until

from coma_gen.cli import play
from coma_gen.cli.main import main


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--port", "70000"), "coma-gen: --port: must be 0 to 65535, got 70000"),
        (("--threads", "0"), "coma-gen: --threads: must be 1 to 1024, got 0"),
        (("--max-seconds", "0"), "coma-gen: --max-seconds: must be above 0, got 0.0"),
        (("--model", "nowhere"), "coma-gen: nowhere: must be a model's folder"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["play", *words])
    assert str(ended.value).startswith(reason)


def test_a_port_that_is_taken_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            main(["play", "--model", str(model), "--port", str(port)])
    assert str(ended.value).startswith(f"coma-gen: port {port} of 127.0.0.1: Address already in use")


@pytest.mark.slow
def test_ctrl_c_ends_it_in_the_middle_of_a_piece(model: Path, tmp_path: Path) -> None:
    words = (
        "play",
        "--no-browser",
        "--model",
        str(model),
        "--max-seconds",
        "30000",
        "--max-tokens",
        "9000000",
    )
    with started(tmp_path, sys.executable, "-m", "coma_gen.cli", *words) as job:
        wait_until(lambda: "Ctrl-C" in job.output or job.process.poll() is not None, told=lambda: job.output)
        (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/", job.output)
        with closing(http.client.HTTPConnection("127.0.0.1", int(port))) as connection:
            asked = json.dumps({"seconds": 30_000})
            connection.request("POST", "/continue", asked, {"content-type": "application/json"})
            answer = connection.getresponse()
            while "progress" not in json.loads(answer.readline()):
                pass
            job.signal_group(signal.SIGINT)
            assert job.wait() == 0
    assert "Traceback" not in job.output


def test_every_part_of_the_page_is_packaged() -> None:
    root = Path(__file__).resolve().parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    library = root / "src" / "coma_gen"
    packaged = {path for pattern in patterns["coma_gen"] for path in library.glob(pattern)}
    others = {path for path in library.rglob("*") if path.suffix in (".html", ".css", ".js", ".j2")}
    assert len(others) > 8 and others <= packaged


@pytest.mark.parametrize(
    ("platform", "variables", "has_screen"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
    ],
)
def test_no_browser_is_opened_in_the_terminal(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], has_screen: bool
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert play._has_screen() == has_screen
